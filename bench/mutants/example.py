"""The example project: a pipeline of 50 modules that reach each other in each of the ways that the SDK follows or observes.

`<n>` and `<f>` are replaced by whole and broken numbers that are drawn by the seed, and the modules of `lab/gen` are drawn as a whole.
"""

import random
import re

GENERATED = 10
"""Modules of `lab/gen`."""

PARAMETERS: dict[str, int | str] = {"size": 5, "mode": "fast", "label": "one"}
"""The pipeline's parameters with their values."""

ENVIRONMENT = {
    "HOME": "/home/one",
    "LANG": "C.UTF-8",
    "HOSTNAME": "pod-one",
    "ARGO_NODE_ID": "node-one",
    "EDITOR": "vi",
}
"""Of the machine and of the pod, which a step of the local Argo sees."""

MODULES = {
    "lab/__init__.py": '''
        """The example."""
        SCALE = <n>
        ''',
    "lab/core/__init__.py": '''
        from lab.core.scale import scaled, shifted
        from .clip import clip as clipped, widen
        from . import consts
        ''',
    "lab/core/scale.py": '''
        """Scaling."""
        import math
        from lab import SCALE
        from .consts import OFFSET

        def scaled(x, factor=SCALE):
            """Scale."""
            value = x * factor  # by default
            return value + 0.5

        def shifted(x, by=OFFSET):
            moved = x + by
            if moved > <n>:
                moved = moved - 1
            return moved

        def rooted(x):
            return math.sqrt(abs(x) + <n>)
        ''',
    "lab/core/clip.py": '''
        LOW, HIGH = -<n>, <n> * 10

        def clip(x, low=LOW, high=HIGH):
            return max(low, min(high, x))

        def widen(x, *, times: int = <n>):
            total = 0
            for _ in range(times):
                total += x
            return total

        def narrow(x):
            return x / <n>
        ''',
    "lab/core/consts.py": '''
        OFFSET = <n>
        LIMIT = <n> + 20
        UNUSED = "<n>"
        ''',
    "lab/shapes/__init__.py": '''
        from lab.shapes.round import Circle
        from lab.shapes.flat import Square, Rectangle
        __all__ = ["Circle", "Rectangle", "Square"]
        ''',
    "lab/shapes/base.py": '''
        class Shape:
            """A shape."""
            unit = <n>
            known = []

            def __init__(self, size):
                self.size = size

            def __init_subclass__(cls, **options):
                super().__init_subclass__(**options)
                Shape.known.append(cls.__name__)

            def area(self):
                return self.factor() * self.size * self.unit

            def factor(self):
                return 1

            @property
            def double(self):
                result = self.area() * 2
                return result

            @classmethod
            def made(cls, size=<n>):
                return cls(size)
        ''',
    "lab/shapes/round.py": '''
        from lab.shapes.base import Shape

        class Circle(Shape):
            pi = 3.<n>

            def factor(self):
                base = super().factor()
                return base * self.pi
        ''',
    "lab/shapes/flat.py": '''
        from . import base

        class Square(base.Shape):
            def factor(self):
                return <n>

        class Rectangle(Square):
            ratio = <f>

            def factor(self):
                return super().factor() * self.ratio
        ''',
    "lab/plugins/__init__.py": '''
        NAMES = ["red", "blue"]
        ''',
    "lab/plugins/red.py": '''
        WEIGHT = <n>

        def value(x):
            return x * WEIGHT

        def other(x):
            return x
        ''',
    "lab/plugins/blue.py": '''
        from lab.core import clipped

        def value(x):
            part = clipped(x * <n>)
            return part - <n>
        ''',
    "lab/deco.py": '''
        import functools
        import contextlib

        def doubled(function):
            @functools.wraps(function)
            def inner(*args, **kwargs):
                found = function(*args, **kwargs)
                return found * <n>
            return inner

        def plus(amount=<n>):
            def decorate(function):
                def inner(x):
                    return function(x) + amount
                return inner
            return decorate

        @contextlib.contextmanager
        def noted(log, name="block"):
            log.append(name + "<n>")
            try:
                yield len(log)
            finally:
                log.append("end")
        ''',
    "lab/registry.py": '''
        HANDLERS = {}

        def handler(name, weight=<n>):
            def register(function):
                HANDLERS[name] = (function, weight)
                return function
            return register

        def handled(name, x):
            function, weight = HANDLERS[name]
            return function(x) * weight
        ''',
    "lab/handlers.py": '''
        from lab.registry import handler

        @handler("twice")
        def twice(x):
            return x * 2 + <n>

        @handler("half", weight=<n>)
        def half(x):
            return x / 2

        @handler("never")
        def never(x):
            return x - <n>
        ''',
    "lab/records.py": '''
        from dataclasses import dataclass, field
        from typing import NamedTuple
        from lab.core.consts import LIMIT

        def first_tags():
            return ["a", "b<n>"]

        @dataclass
        class Config:
            rate: float = <f>
            limit: int = LIMIT
            tags: list = field(default_factory=first_tags)

            def total(self):
                return self.rate * self.limit + len(self.tags)

        @dataclass(order=True)
        class Small(Config):
            depth: int = <n>

        class Pair(NamedTuple):
            left: int
            right: int = <n>
        ''',
    "lab/closures.py": '''
        def adder(amount, bonus=<n>):
            counted = 0

            def add(x):
                nonlocal counted
                counted += 1
                return x + amount + bonus * counted

            return add

        square = lambda x, power=<n>: x ** power

        def pipeline_of(*functions):
            def run(value):
                for function in functions:
                    value = function(value)
                return value
            return run
        ''',
    "lab/tables.py": '''
        import operator
        from functools import partial, lru_cache, singledispatch
        from lab.core.scale import shifted, rooted
        from lab.core import clip as clipping

        TABLE = {"fast": shifted, "slow": rooted, "same": lambda x: x + <n>}
        SQUARES = [value * value for value in range(<n>)]
        WEIGHTS = {name: len(name) * <n> for name in ("fast", "slow")}
        KEYS = ("a", "b", "c<n>")
        TRIPLED = partial(operator.mul, <n>)
        NARROWED = clipping.narrow

        def dispatched(name, x):
            return TABLE[name](x) * WEIGHTS.get(name, 1)

        @lru_cache(maxsize=None)
        def slow_sum(n):
            if n <= 0:
                return <n>
            return n + slow_sum(n - 1)

        @singledispatch
        def sized(value):
            return <n>

        @sized.register
        def _(value: list):
            return len(value) + <n>
        ''',
    "lab/lazy.py": '''
        def later(x):
            from lab.core.scale import rooted
            import lab.plugins.red as red
            return rooted(x) + red.WEIGHT

        def never(x):
            import lab.plugins.blue
            return lab.plugins.blue.value(x)
        ''',
    "lab/models.py": '''
        from lab.core.consts import LIMIT

        class Estimator:
            bias = <n>

            def __init__(self, weight=<n>):
                self.weight = weight

            def predict(self, x):
                return self.weight * x + self.bias + helped(x)

        def helped(x):
            return x % LIMIT + <n>

        def tree(x):
            leaf = helped(x)
            return leaf + <n>

        def forest(x):
            return tree(x) * <n>

        def unused(x):
            return x
        ''',
    "lab/fields.py": '''
        class Field:
            def __init__(self, default=<n>):
                self.default = default

            def __set_name__(self, owner, name):
                self.name = name + "<n>"

            def __get__(self, instance, owner=None):
                return self.default if instance is None else (self.name, self.default)

        class Meta(type):
            def __new__(mcs, name, bases, space):
                made = super().__new__(mcs, name, bases, space)
                made.order = len(space) + <n>
                return made

        class Form(metaclass=Meta):
            first = Field()
            second = Field(<n>)

            def shown(self):
                return [self.first, self.second, type(self).order]
        ''',
    "lab/stars.py": '''
        __all__ = ["starred", "STAR"]
        STAR = <n>
        HIDDEN = <n>

        def starred(x):
            return x + STAR

        def hidden(x):
            return x * HIDDEN
        ''',
    "lab/kinds.py": '''
        import asyncio
        import enum

        class Color(enum.Enum):
            RED = <n>
            BLUE = <n> + 10

        class Level(enum.IntFlag):
            LOW = 1
            HIGH = enum.auto()

        def matched(value):
            match value:
                case {"kind": "a", "size": size} if size > 2:
                    return size * <n>
                case [first, *rest]:
                    return first + len(rest) * <n>
                case Color.RED:
                    return <n>
                case str() as text:
                    return len(text)
                case _:
                    return -<n>

        def counted(limit):
            seen = 0
            while True:
                seen += <n>
                if seen >= limit:
                    break
                yield seen

        async def waited(x):
            await asyncio.sleep(0)
            return x + <n>

        def guarded(x):
            try:
                result = 10 / x
            except ZeroDivisionError as error:
                return len(str(error)) + <n>
            else:
                result += 1
            finally:
                x = 0
            return round(result, 3)

        def chosen(items):
            if (n := len(items)) > <n>:
                return n
            assert n < 100
            first, *others = items
            return first + sum(others) - n
        ''',
    "lab/text.py": '''
        import string
        import inspect

        def documented(x):
            """Documented <n>."""
            return x

        def described(function):
            return function.__doc__ or "none"

        def formatted(count):
            width = <n>
            name = "item"
            return "{name}:{count}:{width}".format(**locals())

        def named():
            inner = <n>
            frame = inspect.currentframe()
            return sorted(frame.f_locals)[:1] + [inner]

        def evaluated(x):
            amount = x + <n>
            return eval("amount * 2")

        def filled(x):
            template = string.Template("$a-$b")
            return template.substitute(a=x, b="<n>")

        def debugged(x):
            part = x * <n>
            return f"{part=} {part:>5}"

        def signed(x, y=<n>, *, z: int = <n>):
            return x + y + z
        ''',
    "lab/cycle_a.py": '''
        import lab.cycle_b

        BASE = <n>

        def down(x):
            return x if x <= 0 else lab.cycle_b.step(x - 1) + BASE
        ''',
    "lab/cycle_b.py": '''
        import lab.cycle_a

        RATE = <n>

        def step(x):
            return lab.cycle_a.down(x - 1) * RATE
        ''',
    "lab/attributes.py": '''
        _VALUES = {"speed": <n>, "depth": <n>}

        def __getattr__(name):
            if name in _VALUES:
                return _VALUES[name] + <n>
            raise AttributeError(name)

        def by_name(prefix, x):
            return globals()[prefix + "_one"](x)

        def take_one(x):
            return x + <n>
        ''',
    "lab/hints.py": '''
        import typing
        from dataclasses import dataclass, fields

        @dataclass
        class Typed:
            size: int = <n>
            name: str = "x"

        def shown():
            return [one.name + str(one.type) for one in fields(Typed)]

        def hinted(x: "int", y: "str" = "<n>") -> float:
            return x

        def read():
            return sorted(str(one) for one in typing.get_type_hints(hinted).values())
        ''',
    "lab/unused.py": '''
        import json
        VALUE = <n>

        def nobody(x):
            """Nobody calls this."""
            y = x + VALUE
            return json.dumps(y)

        class Nobody:
            size = <n>

            def method(self):
                return self.size
        ''',
    "lab/steps/__init__.py": "",
    "lab/steps/basic.py": '''
        import asyncio
        from periplus.sdk import step
        from lab import closures
        from lab.core import scaled, shifted, clipped, widen as widened
        from lab.deco import doubled, plus, noted
        from lab.kinds import Color, Level, chosen, counted, guarded, matched, waited
        import lab.tables as tables

        ROUNDS = <n>

        @doubled
        def once(x):
            return scaled(x) + <n>

        @plus(<n>)
        def more(x):
            return x + 1

        @step
        def core(size: int) -> float:
            """The core."""
            total = 0.0
            for number in range(size):
                total += scaled(number) + shifted(number) + clipped(number * 7)
            return total + widened(size)

        @step
        def decorated(size: int) -> list[float]:
            log = []
            with noted(log) as depth, noted(log, name="inner"):
                value = once(size) + depth
            return [value, more(size), len("".join(log))]

        @step
        def enclosed(size: int) -> list[int]:
            add = closures.adder(size)
            run = closures.pipeline_of(add, closures.square, add)
            return [run(size), add(1)]

        @step
        def tabled(size: int, mode: str) -> list[float]:
            found = tables.dispatched(mode, size) + sum(tables.SQUARES)
            return [found, tables.TRIPLED(size), tables.slow_sum(size), tables.sized([size]), tables.NARROWED(size)]

        @step
        def controlled(size: int) -> list[float]:
            values = [matched(one) for one in ({"kind": "a", "size": size}, [size, 2], Color.RED, "text", None)]
            values += [sum(counted(size * 10)), guarded(0), guarded(size), chosen([size, 1, 2])]
            values.append(asyncio.run(waited(size)) + Color.BLUE.value + Level.HIGH)
            return values
        ''',
    "lab/steps/classes.py": '''
        from periplus.sdk import step
        from lab.fields import Form
        from lab.hints import read, shown
        from lab.records import Config, Pair, Small
        from lab.shapes import Circle, Rectangle
        from lab.shapes.base import Shape

        @step
        def shaped(size: int) -> list[float]:
            shapes = [Circle(size), Rectangle.made(), Circle.made(size=2)]
            return [one.area() for one in shapes] + [shapes[0].double]

        @step
        def subclassed() -> list[str]:
            return sorted(Shape.known)

        @step
        def recorded(size: int) -> list[float]:
            config, small, pair = Config(rate=size), Small(), Pair(size)
            return [config.total(), small.total() + small.depth, pair.left + pair.right]

        @step
        def formed() -> str:
            return repr(Form().shown())

        @step
        def typed() -> list[str]:
            return shown() + read()
        ''',
    "lab/steps/dynamic.py": '''
        import importlib
        import pickle
        import pkgutil
        from periplus.sdk import step
        import lab.handlers
        from lab import attributes, cycle_a, lazy, plugins
        from lab.models import Estimator
        from lab.registry import handled
        from lab.stars import *

        FACTOR = <n>

        @step
        def trained(size: int) -> bytes:
            return pickle.dumps(Estimator(size))

        @step
        def lazily(size: int) -> float:
            return lazy.later(size) * FACTOR

        @step
        def plugged(size: int) -> float:
            total = 0
            for name in plugins.NAMES:
                total += importlib.import_module("lab.plugins." + name).value(size)
            return total

        @step
        def registered(size: int) -> float:
            return handled("twice", size) + handled("half", size)

        @step
        def from_stars(size: int) -> int:
            return starred(size)

        @step
        def circular(size: int) -> int:
            return cycle_a.down(size)

        @step
        def attributed(size: int) -> int:
            return attributes.speed + attributes.by_name("take", size)
        ''',
    "lab/steps/looked_up.py": '''
        import pickle
        import pkgutil
        from periplus.sdk import step

        FACTOR = <n>

        @step
        def predicted(model: bytes, size: int) -> float:
            return pickle.loads(model).predict(size) * FACTOR

        @step
        def resolved(size: int) -> float:
            return pkgutil.resolve_name("lab.models.tree")(size) + pkgutil.resolve_name("lab.tables:KEYS")[0].count("a")

        @step
        def named_late(label: str, size: int) -> float:
            return pkgutil.resolve_name("lab.plugins." + {"one": "red", "two": "blue"}.get(label, "red")).value(size)
        ''',
    "lab/steps/data.py": '''
        import json
        import os
        import subprocess
        import sys
        from pathlib import Path
        from periplus.sdk import step

        HERE = Path(__file__).parent
        KEY = "rate"

        @step(files=["table.json"])
        def from_file(size: int) -> float:
            return json.loads((HERE / "table.json").read_text())[KEY] * size

        @step(files=["texts"])
        def from_folder() -> int:
            return sum(len(file.read_text().split()) * <n> for file in sorted((HERE / "texts").iterdir()))

        @step
        def from_variable(size: int) -> str:
            return os.environ.get("LAB_MODE", "none") + str(size)

        @step
        def from_machine() -> str:
            return os.environ.get("LANG", "none") + os.environ["HOME"]

        @step
        def from_pod() -> str:
            return os.environ["HOSTNAME"]

        @step(files=["script.txt"])
        def from_process(size: int) -> str:
            done = subprocess.run([sys.executable, "-I", str(HERE / "script.txt"), str(size)], capture_output=True, text=True)
            return done.stdout
        ''',
    "lab/steps/texts.py": '''
        from periplus.sdk import step
        from lab.text import debugged, described, documented, evaluated, filled, formatted, named, signed

        @step
        def formats(size: int) -> list[str]:
            return [formatted(size), filled(size), debugged(size)]

        @step
        def documents() -> str:
            return described(documented)

        @step
        def frames(size: int) -> list[str]:
            return [*map(str, named()), str(evaluated(size))]

        @step
        def signatures(size: int) -> int:
            return signed(size) + signed(size, z=<n>)
        ''',
    "lab/steps/packaged.py": '''
        from importlib import metadata
        from periplus.sdk import step

        @step(requirements="tools.lock")
        def with_tools(size: int) -> str:
            import labtools
            return labtools.VERSION + "/" + str(labtools.amount(size))

        @step(requirements="other.lock")
        def with_version() -> str:
            return metadata.version("labother")
        ''',
    "flow.py": '''
        from periplus.sdk import pipeline
        from lab.steps import basic, classes, data, dynamic, looked_up, packaged, texts
        from lab.steps.drawn import drawn_0, drawn_1, drawn_2, drawn_3, joined

        @pipeline
        def flow(size: int = 5, mode: str = "fast", label: str = "one") -> None:
            core = basic.core(size)
            basic.decorated(size)
            basic.enclosed(size)
            basic.tabled(size, mode)
            basic.controlled(size)
            classes.shaped(size)
            classes.subclassed()
            classes.recorded(size)
            classes.formed()
            classes.typed()
            model = dynamic.trained(size)
            dynamic.lazily(size)
            dynamic.plugged(size)
            dynamic.registered(size)
            dynamic.from_stars(size)
            dynamic.circular(size)
            dynamic.attributed(size)
            looked_up.predicted(model, size)
            looked_up.resolved(size)
            looked_up.named_late(label, size)
            data.from_file(size)
            data.from_folder()
            data.from_variable(size)
            data.from_machine()
            data.from_pod()
            data.from_process(size)
            texts.formats(size)
            texts.documents()
            texts.frames(size)
            texts.signatures(size)
            packaged.with_tools(size)
            packaged.with_version()
            first, second = drawn_0(size), drawn_1(size)
            drawn_2(size)
            drawn_3(size)
            joined(first, second, core)
        ''',
}  # fmt: skip

FILES = {
    "lab/steps/table.json": '{"rate": <n>, "other": <n>}\n',
    "lab/steps/texts/a.txt": "one two <n>\n",
    "lab/steps/texts/b.txt": "three <n>\n",
    "lab/steps/script.txt": "import sys\nprint(int(sys.argv[1]) * <n>)\n",
    "lab/steps/README.txt": "notes <n>\n",
    "lab/steps/tools.lock": f"labtools==1.<n>.0 --hash=sha256:{'0' * 64}\n",
    "lab/steps/other.lock": f"# pinned\nlabother==2.<n>.0 --hash=sha256:{'1' * 64}\n",
}


PACKAGES = {"labunused": "3.0.0"}
"""Installed packages with their versions."""


def project(seed: int) -> dict[str, str]:
    """The files of the project, by name. 50 of them are modules."""
    chance = random.Random(seed)
    versions = {one: chance.randint(2, 9) for one in "12"}
    found = {}
    for name, template in {**MODULES, **FILES}.items():
        lines = template.strip("\n").split("\n")
        indent = len(lines[0]) - len(lines[0].lstrip())
        dedented = [line[indent:] if line[:indent].isspace() else line for line in lines]
        text = "\n".join(dedented).rstrip() + "\n"
        found[name] = re.sub(r"==([12])\.<n>", lambda found: f"=={found[1]}.{versions[found[1]]}", text)
        found[name] = _numbers(found[name], chance) if text.strip() else ""
    found |= _drawn(chance)
    modules = [name for name in found if name.endswith(".py")]
    assert len(modules) == 50, len(modules)
    return found


def pinned(files: dict[str, str]) -> dict[str, str]:
    """The packages that steps of these files install, with their versions."""
    text = "".join(text for name, text in files.items() if name.endswith(".lock"))
    return dict(re.findall(r"^(\w+)==(\S+)", text, re.MULTILINE))


def _numbers(text: str, chance: random.Random) -> str:
    text = re.sub("<n>", lambda _: str(chance.randint(2, 9)), text)
    return re.sub("<f>", lambda _: f"{chance.randint(1, 9)}.{chance.randint(1, 9)}", text)


def _drawn(chance: random.Random) -> dict[str, str]:
    """Modules whose functions call those of earlier ones, through an import of a kind that is drawn."""
    files = {"lab/gen/__init__.py": "from lab.gen.g00 import f0 as first\n"}
    for number in range(GENERATED):
        imports, calls = [], ["x"]
        for other in sorted(chance.sample(range(number), min(number, chance.randint(1, 3)))):
            name, function = f"g{other:02}", f"f{chance.randint(0, 3)}"
            form, call = chance.choice([
                (f"from lab.gen.{name} import {function} as {name}_{function}", f"{name}_{function}(x)"),
                (f"import lab.gen.{name}", f"lab.gen.{name}.{function}(x)"),
                (f"from lab.gen import {name}", f"{name}.{function}(x)"),
                (f"from . import {name} as other_{name}", f"other_{name}.{function}(x)"),
                (f"from .{name} import {function} as taken_{other}", f"taken_{other}(x)"),
            ])  # fmt: skip
            imports.append(form)
            calls.append(call)
        lines = [*imports, f"RATE = {chance.randint(2, 9)}", f"BIAS = {chance.randint(2, 9)}", ""]
        for each in range(4):
            call = calls[each % len(calls)]
            lines += [
                f"def f{each}(x, weight={chance.randint(2, 9)}):",
                f'    """Function {each}."""',
                f"    part = {call} % {chance.randint(50, 99)}  # keeps it small",
                f"    {chance.choice(['scaled', 'result', 'found'])}_value = part * RATE + weight" if each % 2
                else "    values = [one + BIAS for one in range(3)]",
                f"    if part > {chance.randint(2, 9)}:",
                f"        part = part - {chance.randint(1, 3)}",
                "    return part * weight" if each % 2 else "    return part + sum(values)",
                "",
            ]  # fmt: skip
        files[f"lab/gen/g{number:02}.py"] = "\n".join(lines)
    lines = ["from periplus.sdk import step", "from lab.gen import first"]
    used = sorted(chance.sample(range(GENERATED), 6))
    lines += [f"from lab.gen import g{one:02}" for one in used]
    for number in range(4):
        chosen = [f"g{one:02}.f{chance.randint(0, 3)}(size)" for one in chance.sample(used, 2)]
        lines += [
            "",
            "@step",
            f"def drawn_{number}(size: int) -> int:",
            f"    return {' + '.join(chosen)} + first(size)",
        ]
    lines += ["", "@step", "def joined(first: int, second: int, core: float) -> float:"]
    lines += [f"    return first * {chance.randint(2, 9)} + second % 1000 + core"]
    files["lab/steps/drawn.py"] = "\n".join(lines) + "\n"
    return files
