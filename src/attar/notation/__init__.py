"""Text ⇄ objects: `0.9 * kl(temperature=4.0) + 0.1 * labels()`, read against a closed vocabulary; nothing in it can execute code.

    text     = sum                                        at most 10,000 characters, 32 levels deep, 2,000 tokens
    sum      = product ("+" product)*                     terms are added,
    product  = unary ("*" unary)*                         a number or a weight times a term
    unary    = ["-"] (literal | list | call | "(" sum ")")
    call     = word "(" [argument ("," argument)*] ")"    argument = sum | name "=" sum
    list     = "[" [sum ("," sum)*] "]"                   literal  = number | "text" | True | False | None

A call may be a space, `integer(8, 128)`, for a search to choose from: see `attar.notation.spaces`.

`parse` gives a tree of Nodes, which `override` changes and `write` prints; `resolve` looks its words up, checks their arguments against
the annotations of what they find, and calls it; `read` is both. `say` writes a call: it is what a word's `__repr__` returns.
"""

from __future__ import annotations

from attar.notation.annotations import Called, InPath, OutPath, signature
from attar.notation.change import map_paths, override
from attar.notation.parse import parse
from attar.notation.places import in_package, located
from attar.notation.resolve import Vocabulary, read, resolve
from attar.notation.spaces import Hole, Space, calls, changed
from attar.notation.tree import Call, List, Minus, Name, Node, Place, Product, Sum, Value, say, write

__all__ = [
    "Call",
    "Called",
    "Hole",
    "InPath",
    "List",
    "Minus",
    "Name",
    "Node",
    "OutPath",
    "Place",
    "Product",
    "Space",
    "Sum",
    "Value",
    "Vocabulary",
    "calls",
    "changed",
    "in_package",
    "located",
    "map_paths",
    "override",
    "parse",
    "read",
    "resolve",
    "say",
    "signature",
    "write",
]
