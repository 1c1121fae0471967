"use strict";
// Sorts the rows of a table by the column whose heading was pressed; what is not known stays last.
for (const table of document.querySelectorAll("table[data-sortable]")) {
  const headings = [...table.tHead.rows[0].cells];
  const status = document.getElementById("sorted");
  headings.forEach((heading, column) => {
    const button = heading.querySelector("button");
    if (!button) return;
    button.addEventListener("click", () => {
      const numeric = heading.classList.contains("number");
      // Numbers first from the largest, texts from the start of the alphabet.
      const again = heading.getAttribute("aria-sort");
      const up = again === "none" ? !numeric : again === "descending";
      const key = (row) => {
        const cell = row.cells[column];
        return cell.dataset.key === undefined ? cell.textContent : cell.dataset.key === "" ? NaN : Number(cell.dataset.key);
      };
      const rows = [...table.tBodies[0].rows].map((row) => [key(row), row]);
      rows.sort(([a], [b]) => {
        if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
        const order = typeof a === "string" ? a.localeCompare(b) : a - b;
        return up ? order : -order;
      });
      table.tBodies[0].append(...rows.map(([, row]) => row));
      for (const other of headings) if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
      heading.setAttribute("aria-sort", up ? "ascending" : "descending");
      status.textContent = `Sorted by ${button.textContent}, ${up ? "ascending" : "descending"}`;
    });
  });
}
// What is folded up on the screen is printed too.
for (const [name, open] of [["beforeprint", true], ["afterprint", false]]) {
  window.addEventListener(name, () => {
    for (const details of document.querySelectorAll(open ? "details:not([open])" : "details[data-printed]")) {
      details.open = open;
      details.toggleAttribute("data-printed", open);
    }
  });
}
