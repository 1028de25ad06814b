"""TTIR text -> ir.Module. Strict: a line of unknown form raises ParseError with that line.

Reads what MLIR prints for Triton 3.6 to 3.9, with or without locations (`module.str()` or `module.str_nodebug()`).
SSA names repeat in sibling regions, so names are resolved against a scope that regions copy.
"""

from __future__ import annotations

import functools
import re
from typing import Any

from trident_cpu.errors import ParseError
from trident_cpu.ir import Block, Function, Module, Op, Region, Type, Value

VALUE = re.compile(r"%[\w$.\-]+(?:#\d+)?")
_LOC = re.compile(r"\s?loc\(((?:[^()]|\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\))*)\)")
_NEST = re.compile(r'"(?:[^"\\]|\\.)*"|->|[<({\[]|[>)}\]]|,| : ')
_BRACKET = re.compile(r'[<({\["]')
_RESULT = re.compile(r"(%[\w$.\-]+(?:, %[\w$.\-]+)*)(?::(\d+))? = (.*)")
_NAME = re.compile(r'"?([a-zA-Z_][\w]*(?:\.[\w]+)+)"?')
_ATTRS = re.compile(r"<?\{([^{}]*)\}>?\s*$")
_INTEGER = re.compile(r"(-?\d+) : i\d+$")
_ARRAY = re.compile(r"array<i\d+(?:: ([-\d, ]*))?>$")
_FLAG = re.compile(r"\s*(?:overflow|fastmath)<[\w, ]*>")
_SIZE = re.compile(r"(\d+)x")
_ELEMENT = re.compile(r"[a-zA-Z]\w*")
_WITH_WORDS = re.compile(r"(%\S+)((?: [a-z_]+)+)")  # tt.reshape %x allow_reorder
_INDEXED = re.compile(r"(%[^\s\[]+)\[(%[^\s\]]+)\]")  # tt.gather %source[%indices]
_WORD = re.compile(r"[a-z_]\w*")
_WORD_OPERAND = re.compile(r"([a-z_]+),? ?(%\S+)")


def parse_type(text: str, line: str = "") -> Type:
    """`tensor<4x!tt.ptr<f32>>`, `!tt.ptr<f32>`, `f32` -> Type. A layout after the element type is an error."""
    found = _type(text.strip())
    if found is None:
        raise ParseError(line or text, f"unknown type {text!r}")
    return found


@functools.lru_cache(4096)  # kernels have few types and write them at every op
def _type(text: str) -> Type | None:
    if text.startswith("tensor<"):
        body, shape = text[7:-1], []
        while match := _SIZE.match(body):
            shape.append(int(match[1]))
            body = body[match.end() :]
        of = _type(body.strip())
        return of and Type(tuple(shape), of.element)
    if text.startswith("!tt.ptr<"):
        of = _type(text[8:-1].split(",")[0].strip())
        return of and Type((), "ptr:" + of.element)
    return Type((), text) if _ELEMENT.fullmatch(text) else None


def _outside(text: str, mark: str) -> list[re.Match[str]]:
    """Where "," or " : " stands outside every bracket and string."""
    found, depth = [], 0
    for match in _NEST.finditer(text):
        token = match[0]
        if token in "<({[":
            depth += 1
        elif token in ">)}]":
            depth -= 1
        elif token == mark and depth == 0:
            found.append(match)
    return found


def split_commas(text: str) -> list[str]:
    """Split at the commas outside every bracket and string."""
    if not _BRACKET.search(text):
        parts = [part.strip() for part in text.split(",")]
        return parts if parts[-1] else parts[:-1]
    parts, start = [], 0
    for comma in _outside(text, ","):
        parts.append(text[start : comma.start()].strip())
        start = comma.end()
    last = text[start:].strip()
    return [*parts, last] if last else parts


def split_type(text: str) -> tuple[str, str]:
    """`body : types` cut at the last colon outside every bracket and string; types is "" where there is none."""
    colons = _outside(text, " : ")
    return (text[: colons[-1].start()].strip(), text[colons[-1].end() :].strip()) if colons else (text.strip(), "")


def _attribute(text: str) -> Any:
    text = text.strip()
    if match := _INTEGER.match(text):
        return int(match[1])
    if match := _ARRAY.match(text):
        return tuple(int(x) for x in (match[1] or "").split(",") if x.strip())
    if text in ("true", "false"):
        return text == "true"
    return text.strip('"')


def parse_attributes(text: str) -> dict[str, Any]:
    attrs: dict[str, Any] = {}
    for item in split_commas(text):
        key, _, value = item.partition("=")
        attrs[key.strip()] = _attribute(value) if value else True
    return attrs


class Parser:
    def __init__(self, text: str) -> None:
        self.locations: dict[str, str] = {}
        self.lines: list[str] = []
        self.at = 0
        self.scope: dict[str, Value] = {}
        for raw in text.splitlines():
            line = raw.strip()
            if line.startswith("#loc"):
                name, _, body = line.partition(" = ")
                self.locations[name] = body[4:-1]
            elif line and not line.startswith("//"):
                self.lines.append(line)

    # ---- lines, names, types

    def take(self) -> tuple[str, str]:
        """The next line without its locations, and its last location."""
        line = self.lines[self.at]
        self.at += 1
        loc = ""
        if "loc(" in line:
            found = list(_LOC.finditer(line))
            if found:
                loc = found[-1][1]
                line = _LOC.sub("", line)
        return line, loc

    def use(self, name: str, line: str) -> Value:
        if name not in self.scope:
            raise ParseError(line, f"{name} is not defined")
        return self.scope[name]

    def define(self, name: str, type: Type, op: Op | None = None) -> Value:
        value = self.scope[name] = Value(name, type, op)
        return value

    def uses(self, text: str, line: str) -> list[Value]:
        return [self.use(name, line) for name in VALUE.findall(text)]

    def types(self, text: str, line: str) -> list[Type]:
        text = text.strip()
        if text.startswith("(") and text.endswith(")"):
            text = text[1:-1]
        return [parse_type(part, line) for part in split_commas(text)]

    # ---- module, functions, regions

    def module(self) -> Module:
        functions = {}
        while self.at < len(self.lines):
            line = self.lines[self.at]
            if line.startswith("tt.func"):
                function = self.function()
                functions[function.name] = function
            elif re.match(r"(module\b.*\{$|\}|\{-#|#-\})", line):
                self.at += 1
            else:
                raise ParseError(line, "expected a function")
        return Module(functions, self.locations)

    def function(self) -> Function:
        line, loc = self.take()
        head = re.match(r"tt\.func (public |private )?@([\w.$]+|\"[^\"]+\")\(", line)
        if not head or not line.endswith("{"):
            raise ParseError(line, "function header")
        depth, end = 1, head.end()
        while depth:
            depth += {"(": 1, ")": -1}.get(line[end], 0)
            end += 1
        self.scope = {}
        params = []
        for part in split_commas(line[head.end() : end - 1]):
            name, _, text = part.partition(":")
            params.append(self.define(name.strip(), parse_type(re.sub(r"\{.*\}", "", text), line)))
        tail = re.sub(r"attributes \{.*\} \{$|\{$", "", line[end:]).strip()
        results = self.types(tail[2:], line) if tail.startswith("->") else []
        region = self.region()
        self.take()
        return Function(head[2].strip('"'), params, results, region, "private" not in (head[1] or ""), loc)

    def region(self, args: list[Value] | None = None) -> Region:
        """Blocks up to, and not including, the line that closes the region."""
        region = Region([Block("bb0", args or [])])
        while True:
            line = self.lines[self.at]
            if line.startswith("}"):
                return region
            if line.startswith("^"):
                line, _ = self.take()
                head = re.match(r"\^(\w+)(?:\((.*)\))?:", line)
                if not head:
                    raise ParseError(line, "block header")
                block = region.blocks[-1]
                if block.ops or block.args:
                    block = Block(head[1])
                    region.blocks.append(block)
                block.label = head[1]
                for part in split_commas(head[2] or ""):
                    name, _, text = part.partition(":")
                    block.args.append(self.define(name.strip(), parse_type(text, line)))
                continue
            region.blocks[-1].ops.append(self.op())

    def scoped_region(self, args: list[tuple[str, Type]]) -> Region:
        saved = self.scope
        self.scope = dict(saved)
        region = self.region([self.define(name, type) for name, type in args])
        self.scope = saved
        return region

    # ---- ops

    def op(self) -> Op:
        line, loc = self.take()
        names: list[str] = []
        rest = line
        if match := _RESULT.match(line):
            names = match[1].split(", ") if not match[2] else [f"{match[1]}#{k}" for k in range(int(match[2]))]
            rest = match[3]
        head = _NAME.match(rest)
        if not head:
            raise ParseError(line, "op name")
        name, rest = head[1], rest[head.end() :].strip()
        special = _SPECIAL.get(name)
        op, types = special(self, name, rest, line) if special else self.plain(name, rest, line)
        op.loc = loc or op.loc
        if name == "tt.split" and len(types) == 1:  # prints one type for its two equal results
            types = types * 2
        if len(types) != len(names):
            raise ParseError(line, f"{len(names)} results, {len(types)} result types")
        op.results = [self.define(n, t, op) for n, t in zip(names, types, strict=True)]
        return op

    def plain(self, name: str, rest: str, line: str) -> tuple[Op, list[Type]]:
        """`keyword, ..., %operand, ..., key = value {attributes} : types`."""
        body, type_text = split_type(rest)
        attrs: dict[str, Any] = {}
        if match := _ATTRS.search(body):
            attrs = parse_attributes(match[1])
            body = body[: match.start()].strip()
        operands: list[Value] = []
        words: list[str] = []
        for part in split_commas(_FLAG.sub("", body) if "<" in body else body):
            if match := _WITH_WORDS.fullmatch(part):
                words += match[2].split()
                part = match[1]
            if part.startswith("%"):
                indexed = _INDEXED.fullmatch(part)
                names = indexed.groups() if indexed else (part,)
                if not all(VALUE.fullmatch(n) for n in names):
                    raise ParseError(line, f"operand {part!r}")
                operands += [self.use(n, line) for n in names]
            elif "=" in part:
                attrs.update(parse_attributes(part))
            elif _WORD.fullmatch(part):
                words.append(part)
            elif match := _WORD_OPERAND.fullmatch(part):
                words.append(match[1])
                operands.append(self.use(match[2], line))
            else:
                raise ParseError(line, f"unknown part {part!r}")
        if words:
            attrs["words"] = tuple(words)
        return Op(name, operands, attrs), self.result_types(name, type_text, line)

    def result_types(self, name: str, text: str, line: str) -> list[Type]:
        if name in _NO_RESULT:
            return []
        if "->" in text:
            return self.types(text.rsplit("->", 1)[1], line)
        if " to " in text:
            return [parse_type(text.split(" to ")[1], line)]
        types = self.types(text, line)
        if name in ("arith.cmpi", "arith.cmpf"):
            return [Type(types[0].shape, "i1")]
        if name == "tt.load":
            return [Type(types[0].shape, types[0].pointee)]
        if name == "tt.unsplat":  # prints the tile's
            return [Type((), types[0].element)]
        return [types[-1] if name == "arith.select" else types[0]] if types else []

    def constant(self, name: str, rest: str, line: str) -> tuple[Op, list[Type]]:
        text, type_text = split_type(rest)
        if not type_text:
            type_text = "i1"
        match = re.fullmatch(r"dense<(.*)>", text)
        literal = (match[1] if match else text).strip()
        if not re.fullmatch(r"true|false|-?\d+|0x[0-9A-Fa-f]+|-?[\d.]+(?:[eE][+-]?\d+)?", literal):
            raise ParseError(line, f"constant {literal!r}")
        return Op(name, [], {"value": literal}), [parse_type(type_text, line)]

    def for_loop(self, name: str, rest: str, line: str) -> tuple[Op, list[Type]]:
        match = re.fullmatch(r"(unsigned )?(%\S+) = (%\S+) to (%\S+) step (%\S+)(.*)\{", rest)
        if not match:
            raise ParseError(line, "scf.for header")
        tail, index, types, names, inits = match[6].strip(), "i32", [], [], []
        if carried := re.match(r"iter_args\((.*?)\) -> \((.*)\)(?:\s*:\s*(\w+))?$", tail):
            for part in split_commas(carried[1]):
                arg, _, init = part.partition(" = ")
                names.append(arg)
                inits.append(init)
            types = self.types(carried[2], line)
            index = carried[3] or "index"
        elif plain := re.fullmatch(r":\s*(\w+)", tail):
            index = plain[1]
        elif tail:
            raise ParseError(line, "scf.for header")
        else:
            index = "index"
        operands = [self.use(n, line) for n in [*match.groups()[2:5], *inits]]
        op = Op(name, operands, {"unsigned": bool(match[1])})
        op.regions = [self.scoped_region([(match[2], parse_type(index)), *zip(names, types, strict=True)])]
        self.close(op, line)
        return op, types

    def if_else(self, name: str, rest: str, line: str) -> tuple[Op, list[Type]]:
        match = re.fullmatch(r"(%\S+)(?: -> \((.*)\))? \{", rest)
        if not match:
            raise ParseError(line, "scf.if header")
        op = Op(name, [self.use(match[1], line)])
        op.regions = [self.scoped_region([]), Region([Block("bb0")])]
        if re.match(r"\} else \{", self.lines[self.at]):
            self.at += 1
            op.regions[1] = self.scoped_region([])
        self.close(op, line)
        return op, self.types(match[2], line) if match[2] else []

    def while_loop(self, name: str, rest: str, line: str) -> tuple[Op, list[Type]]:
        match = re.fullmatch(r"(?:\((.*?)\) )?: \((.*?)\) -> (\(.*\)|\S+) \{", rest)
        if not match:
            raise ParseError(line, "scf.while header")
        pairs = [part.partition(" = ") for part in split_commas(match[1] or "")]
        types = self.types(match[2], line)
        op = Op(name, [self.use(init, line) for _, _, init in pairs])
        op.regions = [self.scoped_region([(arg, t) for (arg, _, _), t in zip(pairs, types, strict=True)])]
        if not re.match(r"\} do \{", self.lines[self.at]):
            raise ParseError(self.lines[self.at], "scf.while body")
        self.at += 1
        op.regions.append(self.scoped_region([]))
        self.close(op, line)
        return op, self.types(match[3], line)

    def close(self, op: Op, line: str) -> None:
        end, op.loc = self.take()
        match = re.fullmatch(r"\}(?: attributes)?(?: \{(.*)\})?", end)
        if not match:
            raise ParseError(end, f"end of {line}")
        op.attrs.update({f"loop {k}": v for k, v in parse_attributes(match[1] or "").items()})

    def with_region(self, name: str, rest: str, line: str) -> tuple[Op, list[Type]]:
        """`"tt.reduce"(%a, %b) <{axis = 0 : i32}> ({` ... `}) : (types) -> types`."""
        match = re.fullmatch(r"\(([^()]*)\)(?: <\{(.*)\}>)? \(\{", rest)
        if not match:
            raise ParseError(line, f"{name} header")
        op = Op(name, self.uses(match[1], line), parse_attributes(match[2] or ""))
        op.regions = [self.scoped_region([])]
        end, op.loc = self.take()
        tail = re.fullmatch(r"\}\)(?: \{(.*)\})? : \(.*\) -> (.*)", end)
        if not tail:
            raise ParseError(end, f"end of {name}")
        op.attrs.update(parse_attributes(tail[1] or ""))
        return op, self.types(tail[2], line)

    def branch(self, name: str, rest: str, line: str) -> tuple[Op, list[Type]]:
        rest = re.sub(r"//.*", "", rest)
        op = Op(name, self.uses(rest.split(",")[0], line) if name == "cf.cond_br" else [])
        for label, passed in re.findall(r"\^(\w+)(?:\(([^()]*)\))?", rest):
            op.successors.append((label, self.uses(passed.split(":")[0], line)))
        if len(op.successors) != (2 if name == "cf.cond_br" else 1):
            raise ParseError(line, "branch targets")
        return op, []

    def call(self, name: str, rest: str, line: str) -> tuple[Op, list[Type]]:
        match = re.fullmatch(r"@([\w.$]+|\"[^\"]+\")\(([^()]*)\) : \(.*?\) -> (.*)", rest)
        if not match:
            raise ParseError(line, "call")
        return Op(name, self.uses(match[2], line), {"callee": match[1].strip('"')}), self.types(match[3], line)

    def message(self, name: str, rest: str, line: str) -> tuple[Op, list[Type]]:
        """tt.assert and tt.print carry a string."""
        text = re.search(r'"((?:[^"\\]|\\.)*)"', rest)
        if not text:
            raise ParseError(line, "message")
        bare = rest.replace(text[0], "")
        attrs = parse_attributes(m[1]) if (m := re.search(r"\{([^{}]*)\}", bare)) else {}
        return Op(name, self.uses(bare, line), {**attrs, "message": text[1]}), []

    def memory(self, name: str, rest: str, line: str) -> tuple[Op, list[Type]]:
        """tt.load and tt.store: cache and eviction hints mean nothing here, whatever their spelling."""
        body, type_text = split_type(rest)
        head = re.match(r"%[^\s,]+(?:, %[^\s,]+)*", body)
        if not head:
            raise ParseError(line, f"{name} operands")
        tail = body[head.end() :].strip()
        hint = r"\w+ = #?[\w.]+(?:<[^<>]*>)?"
        if not re.fullmatch(rf"(?:{hint}\s*)*(?:<?\{{(?:[^{{}}])*\}}>?)?", tail):
            raise ParseError(line, f"{name} attributes {tail!r}")
        return Op(name, self.uses(head[0], line), {"text": tail} if tail else {}), self.result_types(
            name, type_text, line
        )

    def condition(self, name: str, rest: str, line: str) -> tuple[Op, list[Type]]:
        return Op(name, self.uses(split_type(rest)[0], line)), []


_NO_RESULT = {
    "tt.store", "tt.return", "scf.yield", "scf.condition", "tt.reduce.return", "tt.scan.return", "tt.assert",
    "tt.print", "llvm.intr.assume", "gpu.barrier", "ttg.barrier", "tt.map_elementwise.return",
}  # fmt: skip
_SPECIAL = {
    "arith.constant": Parser.constant,
    "scf.for": Parser.for_loop,
    "scf.if": Parser.if_else,
    "scf.while": Parser.while_loop,
    "scf.condition": Parser.condition,
    "tt.reduce": Parser.with_region,
    "tt.scan": Parser.with_region,
    "tt.map_elementwise": Parser.with_region,
    "cf.br": Parser.branch,
    "cf.cond_br": Parser.branch,
    "tt.call": Parser.call,
    "tt.assert": Parser.message,
    "tt.print": Parser.message,
    "tt.load": Parser.memory,
    "tt.store": Parser.memory,
}


def parse(text: str) -> Module:
    return Parser(text).module()
