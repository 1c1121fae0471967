"""Hostile pickles and archives of torch.save."""

import io
import pickle
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

from tests.loading.hostile.files import (
    Hostile,
    archive_of,
    call,
    made,
    module,
    named,
    number,
    packed,
    pickle_of,
    records_of,
    saved,
    small_network,
    storage,
    tensor,
    text,
    tuple_of,
)

UNTRUSTED, DAMAGED, EMPTY = (13,), (11,), (12,)


def gadgets(canary: Path, script: Path) -> dict[str, bytes]:
    """Calls of which each leaves a file `canary` behind, by the name of what they call; `script` writes it."""
    path, run = text(str(canary)), text(f"open({str(canary)!r}, 'w')")
    shell, copy = text(f"echo > '{canary}'"), text(str(script))
    words = b"](" + text("touch") + path + b"e"
    calls: dict[str, list[bytes]] = {
        "os.system": [shell],
        "posix.system": [shell],
        "os.mkdir": [path],
        "os.symlink": [copy, path],
        "os.popen": [shell],
        "builtins.eval": [run],
        "builtins.exec": [run],
        "builtins.open": [path, text("w")],
        "io.open": [path, text("w")],
        "subprocess.Popen": [words],
        "subprocess.call": [words],
        "subprocess.check_output": [words],
        "subprocess.getoutput": [shell],
        "runpy.run_path": [copy],
        "timeit.timeit": [run, text("pass"), named("time.perf_counter"), number(1)],
        "cProfile.run": [run],
        "shutil.copyfile": [copy, path],
        "logging.FileHandler": [path],
        "zipfile.ZipFile": [path, text("w")],
        "tarfile.open": [path, text("w")],
        "sqlite3.dbapi2.connect": [path],
        "tests.loading.helpers.touch": [path],
        "torch.serialization.save": [text("x"), path],
    }
    return {name: call(name, *arguments) for name, arguments in calls.items()}


OTHER_NAMES = (
    *("torch.load", "torch.hub.load", "torch.jit.load", "torch.ops.load_library", "pickle.loads", "marshal.loads"),
    *("builtins.getattr", "builtins.__import__", "importlib.import_module", "types.FunctionType", "types.CodeType"),
    *("operator.attrgetter", "operator.methodcaller", "functools.reduce", "ctypes.CDLL", "webbrowser.open"),
    *("torch.fx.graph_module.GraphModule", "torch.fx.graph_module.reduce_graph_module"),
    *("torchvision.models.feature_extraction.DualGraphModule", "torch.jit._script.ScriptModule"),
    *("torch.nn.modules.module.register_module_forward_hook", "timm.models._hub.load_state_dict_from_path"),
    *("timm.models._builder.load_pretrained", "torch.package.package_importer.PackageImporter"),
)


def gadget_files(canary: Path, script: Path) -> Iterator[Hostile]:
    weights = tensor(storage("0", 4), [4], [1])
    for name, gadget in gadgets(canary, script).items():
        yield Hostile(f"gadget-{name}", archive_of(pickle_of(gadget)), UNTRUSTED)
        beside = pickle_of(b"}(", text("weight"), weights, text("args"), gadget, b"u")
        yield Hostile(f"beside-{name}", archive_of(beside, {"0": bytes(16)}), (13, 14, 16), architecture=True)
        yield Hostile(f"inside-{name}", archive_of(pickle_of(module(held=gadget))), UNTRUSTED)
        yield Hostile(f"legacy-{name}", legacy(pickle_of(b"}", text("args"), gadget, b"s")), UNTRUSTED)
    for name in OTHER_NAMES:
        yield Hostile(f"named-{name}", archive_of(pickle_of(module(held=call(name, text("1"))))), UNTRUSTED)


def legacy(pickled: bytes, keys: bytes = b"]") -> bytes:
    head = saved({}, _use_new_zipfile_serialization=False)
    first = head[: head.index(b"\x80\x02}q\x00.")]  # magic number, protocol and machine
    return first + pickled + pickle_of(keys)


def bomb_pickles() -> Iterator[tuple[str, bytes, tuple[int, ...]]]:
    weight = tensor(storage("0", 4), [4], [1])
    doubled = b")" + b"".join(b"q" + bytes([i]) + b"h" + bytes([i]) + b"\x86" for i in range(60))
    yield "hash", pickle_of(b"}", doubled, b"Ns"), UNTRUSTED
    yield "deep-tuple", pickle_of(b"}", b")" + b"\x85" * 500_000, b"Ns"), UNTRUSTED
    yield "flood", pickle_of(b"(", b"]" * 1_000_001, b"l"), UNTRUSTED
    yield "array", pickle_of(call("builtins.bytearray", number(10**12))), UNTRUSTED
    yield "sizes", pickle_of(call("torch.Tensor", number(10**6), number(10**6))), UNTRUSTED
    yield "sizes-new", pickle_of(named("torch.Tensor"), tuple_of(number(10**12)), b"\x81"), UNTRUSTED
    yield "storage-call", pickle_of(call("torch.storage.UntypedStorage", number(10**12))), UNTRUSTED
    yield "code", pickle_of(call("_codecs.encode", text("ü" * 10**5), text("punycode"))), UNTRUSTED
    yield "list-call", pickle_of(named("builtins.bytearray"), b"]", number(10**12), b"aR"), UNTRUSTED
    again = tuple_of(storage("0", 4), number(0), tuple_of(number(10**10)), tuple_of(number(1)))
    yield "set", pickle_of(b"}", text("w"), weight, again, b"bs"), UNTRUSTED
    by_type = (named("builtins.bytearray"), named("torch.Tensor"), tuple_of(number(10**12)), b"}")
    yield "by-type", pickle_of(call("torch._tensor._rebuild_from_type_v2", *by_type)), UNTRUSTED
    yield "beyond", pickle_of(b"}", text("w"), tensor(storage("0", 4), [10**12], [1]), b"s"), DAMAGED
    yield "beyond-step", pickle_of(b"}", text("w"), tensor(storage("0", 4), [2, 2], [10**9, 1]), b"s"), DAMAGED
    yield "beyond-offset", pickle_of(b"}", text("w"), tensor(storage("0", 4), [4], [1], 10**9), b"s"), DAMAGED
    yield "below", pickle_of(b"}", text("w"), tensor(storage("0", 4), [4], [1], -(10**9)), b"s"), DAMAGED
    yield "repeated", pickle_of(b"}", text("w"), tensor(storage("0", 4), [10**6, 10**6], [0, 0]), b"s"), UNTRUSTED
    yield "terabytes", pickle_of(b"}", text("w"), tensor(storage("0", 10**12), [4], [1]), b"s"), DAMAGED
    yield "overflow", pickle_of(b"}", text("w"), tensor(storage("0", 2**62), [2**62], [1]), b"s"), DAMAGED
    yield "no-record", pickle_of(b"}", text("w"), tensor(storage("7", 4), [4], [1]), b"s"), DAMAGED
    yield "no-storage", pickle_of(b"}", text("w"), tensor(number(3), [4], [1]), b"s"), DAMAGED
    yield "long-text", b"\x80\x02X\xff\xff\xff\xff" + b"short.", DAMAGED
    yield "long-number", b"\x80\x02\x8b\xff\xff\xff\x7f" + b"\x01.", DAMAGED
    yield "longer-text", b"\x80\x04\x8d" + b"\xff" * 7 + b"\x7fshort.", DAMAGED
    yield "no-memo", pickle_of(b"h\x07"), DAMAGED
    yield "no-mark", pickle_of(b"NNt"), (11, 13)
    yield "no-stack", b"\x80\x02R.", (11, 13)
    yield "no-end", b"\x80\x02}", DAMAGED
    wide = b"}q\x00"
    for level in range(5):  # mappings of the same mapping, a thousand times, five deep
        wide += (
            b"}(" + b"".join(text(f"k{i}") + b"h" + bytes([level]) for i in range(1000)) + b"uq" + bytes([level + 1])
        )
    yield "wide", pickle_of(wide), EMPTY
    yield "name", pickle_of(b"}", text("state_dict"), b"}", text("n" * 10**6), weight, b"ss"), (14,)
    yield "self", pickle_of(b"}q\x00", text("model"), b"h\x00s"), EMPTY
    relu = named("torch.nn.functional.relu")
    yield "forward", pickle_of(module(forward=relu)), UNTRUSTED
    yield "state-dict", pickle_of(module(state_dict=relu)), UNTRUSTED
    yield "compiled", pickle_of(module(_compiled_call_impl=relu)), UNTRUSTED
    yield "constructed", pickle_of(call("torch.nn.modules.linear.Linear", number(10**6), number(10**6))), UNTRUSTED
    paths = module() + b"q\x00"
    for level in range(40):
        both = text("a") + b"h" + bytes([level]) + text("b") + b"h" + bytes([level])
        paths += module(parts=both) + b"q" + bytes([level + 1])
    yield "paths", pickle_of(paths), UNTRUSTED
    yield "deep-list", pickle_of(module(held=b"]" * 5000 + b"a" * 4999)), UNTRUSTED
    yield "deep-modules", pickle_of(_nested(300)), UNTRUSTED
    yield "no-parts", pickle_of(made("torch.nn.modules.linear.Identity", training=b"\x88")), DAMAGED
    yield "parts-of-numbers", pickle_of(module(parts=text("a") + number(3))), (11, 12)
    yield "graph", pickle_of(named("torchvision.models.feature_extraction.DualGraphModule"), b")\x81"), UNTRUSTED
    yield "attributes", pickle_of(_patched()), UNTRUSTED


def _nested(depth: int) -> bytes:
    found = module()
    for _ in range(depth):
        found = module(parts=text("a") + found)
    return found


def _patched() -> bytes:
    """Sets an attribute of a function of torch's, by way of a module that returns what it is given."""
    named_arguments = b"}" + text("as_subclass") + module() + b"s"
    duck = call("functools.partial", named("argparse.Namespace"))
    duck += tuple_of(named("argparse.Namespace"), b")", named_arguments, b"N") + b"b"
    state = b"}" + text("canary") + number(1) + b"s"
    relu = named("torch.nn.functional.relu")
    return module(held=call("torch._tensor._rebuild_from_type_v2", duck, relu, b")", state))


def patched_function() -> bytes:
    return archive_of(pickle_of(_patched()))


def archive_files() -> Iterator[Hostile]:
    good = records_of(saved(small_network()))
    zeros = bytes(10**8)
    data = next(name for name in good if name.endswith("/data.pkl"))
    yield Hostile("bomb-pickle", packed({**good, data: zeros}, zipfile.ZIP_DEFLATED), UNTRUSTED)
    weights = next(name for name in good if name.endswith("/data/0"))
    yield Hostile("bomb-weights", packed({**good, weights: zeros}, zipfile.ZIP_DEFLATED), UNTRUSTED)
    yield Hostile("bomb-beside", packed({**good, data[:-8] + "more": zeros}, zipfile.ZIP_LZMA), UNTRUSTED)
    for name in ("../evil", "/evil", "archive/../../evil", "..\\evil", "other/data.pkl"):
        yield Hostile(f"name-{name.replace('/', '-')}", packed({**good, name: b"x"}), UNTRUSTED)
    buffer = io.BytesIO(packed(good))
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "a") as archive:
        warnings.simplefilter("ignore")  # of the name
        archive.writestr(data, pickle.dumps(1, 2))
    yield Hostile("twice", buffer.getvalue(), UNTRUSTED)
    plain = packed(good)
    yield Hostile("nested", packed({data: plain}), (11, 13))
    yield Hostile("nested-storage", packed({**good, weights: plain}), (), architecture=False)
    yield Hostile("comment", plain[:-2] + b"\x05\x00hello", DAMAGED)
    yield Hostile("table-size", plain[:-10] + b"\xfe\xff\xff\x7f" + plain[-6:], DAMAGED)
    yield Hostile("table-place", plain[:-6] + b"\xfe\xff\xff\x7f" + plain[-2:], (11, 13))
    yield Hostile("table-64", plain[:-10] + b"\xff\xff\xff\xff" + plain[-6:], DAMAGED)
    yield Hostile("table-far", b"PK\x03\x04" + plain[-22:], DAMAGED)
    central = plain.index(b"PK\x01\x02")
    yield Hostile("encrypted", plain[: central + 8] + b"\x01" + plain[central + 9 :], UNTRUSTED)
    second = plain.index(b"PK\x01\x02", central + 4)
    overlap = plain[: second + 42] + plain[central + 42 : central + 46] + plain[second + 46 :]
    yield Hostile("overlap", overlap, UNTRUSTED)
    yield Hostile("huge-record", plain[: central + 20] + b"\xf0\xff\xff\x7f" * 2 + plain[central + 28 :], (11, 13))


def bomb_files() -> Iterator[Hostile]:
    for name, pickled, codes in bomb_pickles():
        yield Hostile(f"bomb-{name}", archive_of(pickled, {"0": bytes(16)}), codes)
    for name in ("terabytes", "beyond", "repeated", "hash", "array", "long-text"):
        pickled, codes = next((content, codes) for known, content, codes in bomb_pickles() if known == name)
        one = pickled.replace(b"tQ", b"NtQ")  # there a storage may be the view of one
        yield Hostile(f"legacy-bomb-{name}", legacy(one, b"]" + text("0") + b"a"), codes)
    magic = saved({}, _use_new_zipfile_serialization=False)[:16]
    for name, content in {
        "zip-magic": b"PK\x03\x04" + bytes(60),
        "legacy-magic": magic + bytes(64),
        "pickle": pickle.dumps({"a": 1}),
        "png": b"\x89PNG" + bytes(60),
        "gguf": b"GGUF" + bytes(60),
        "zeros": bytes(1000),
        "ones": b"\xff" * 1000,
        "text": b"hello\n" * 20,
        "tar-in-front": magic + b"model" + bytes(600),
    }.items():
        yield Hostile(f"magic-{name}", content, (10, 11, 13))
    yield Hostile("empty", b"", EMPTY)
