"""The drawing of a plan: the options of each layer, and those that the package's own solver takes within a limit."""

from __future__ import annotations

from docs.extensions.svg import Drawing
from vfconvert.budget.knapsack import choose
from vfconvert.budget.table import LayerOptions, Option, OptionTable
from vfconvert.reporting.units import whole
from vfconvert.specs import ConvGeometry

# The convolutions of the tutorial's network, as `vfconvert inspect` shows them there: what each option with the fewest
# primary filters takes off the parameters, and its damage in nats. MACs are not limited here, and so not held.
LAYERS = {
    "3": (4608, {"spatial": (2304, 0.00947), "lines": (2304, 0.00406), "channel": (3456, 0.0132)}),
    "6": (9216, {"spatial": (4608, 0.00488), "lines": (4608, 0.00204), "channel": (6912, 0.0102)}),
    "9": (18432, {"spatial": (9216, 0.00176), "lines": (9216, 0.000937), "channel": (13824, 0.00306)}),
    "12": (36864, {"spatial": (18432, 0.000246), "lines": (18432, 7.75e-05), "channel": (27648, 0.000344)}),
}
WHOLE = 70_330
SHARE = 0.4


def table() -> OptionTable:
    """The options as the solver takes them."""
    geometry = ConvGeometry(in_channels=1, out_channels=1, kernel_size=(1, 1))  # not looked at
    layers = []
    for name, (numbers, options) in LAYERS.items():
        made = [Option(kind="keep", spec=None, parameters=numbers, macs=0, damage=0.0, unexplained=0.0)]
        made += [
            Option(kind=kind, spec=None, parameters=numbers - saved, macs=0, damage=damage, unexplained=0.0)
            for kind, (saved, damage) in options.items()
        ]
        layers.append(LayerOptions(layer=name, geometry=geometry, norm=None, options=tuple(made)))
    order = tuple(LAYERS)
    return OptionTable(
        layers=tuple(layers), kept=(), order=order, parameters=WHOLE, statistics=0, macs=0, measure="nats"
    )


def draw_plan() -> Drawing:
    """One option of each layer: the least damage within the limit."""
    options = table()
    chosen = choose(options, {"params": SHARE * WHOLE}).chosen
    drawing = Drawing(
        "The options of four layers, and the plan of the least damage within 40 % of the parameters.", 480, 262
    )
    damage, parameters = 0.0, options.parameters
    for row, (layer, picked) in enumerate(zip(options.layers, chosen, strict=True)):
        y = 6 + 54 * row
        drawing.text(0, y + 26, f"layer {layer.layer}", kind="small")
        for column, option in enumerate(layer.options):
            x = 54 + 107 * column
            with drawing.group("chosen" if column == picked else "option"):
                drawing.box(x, y, 101, 44, "chosen" if column == picked else "out")
                drawing.text(x + 7, y + 18, option.kind, kind="small strong" if column == picked else "small")
                drawing.text(x + 94, y + 18, whole(option.parameters), kind="small soft", anchor="end")
                drawing.text(x + 7, y + 36, f"damage {option.damage:.2g}", kind="small soft")
        damage += layer.options[picked].damage
        parameters -= layer.options[0].parameters - layer.options[picked].parameters
    said = f"taken together: {whole(parameters)} of {whole(WHOLE)} parameters, damage {damage:.2g}"
    drawing.text(0, 248, said, kind="small strong")
    return drawing
