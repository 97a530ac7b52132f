"""A traced step made cheap to replay: what stays is made once, what is of a row is made once for each row, slow forms become fast ones."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["Replay"]

_FEW = 16  # outcomes: a softmax over so few, lying side by side, is not vectorised; along rows it is, and much faster
_WIDTH = 8  # numbers: a product of another width is slow where it is the transposed one that is narrow

aten = torch.ops.aten
_FLAT = (aten.view.default, aten._unsafe_view.default)
_SAME = (*_FLAT, aten.expand.default, aten.alias.default, aten.detach.default)
_VIEWS = (*_SAME, aten.transpose.int, aten.unsqueeze.default, aten.squeeze.dims, aten.select.int, aten.slice.Tensor, aten.permute.default)
_TURNS = (aten.transpose.int, aten.permute.default)
_LIKE = (aten.ones_like.default, aten.zeros_like.default, aten.full_like.default, aten.new_full.default, aten.new_zeros.default)
_SOFTMAX = {aten._log_softmax.default: 1, aten._softmax.default: 1}
_ALONG = (*_SOFTMAX, aten.unsqueeze.default)  # an axis is their second argument
_EACH = (*_ALONG, aten._to_copy.default)  # of each row by itself, beside what is of each number
_SOFTMAX_BACKWARD = {aten._log_softmax_backward_data.default: 2, aten._softmax_backward_data.default: 2}


class Replay:
    """A step that was traced, as a function of what moves: (held, rows) → a list, gradients and totals as they were traced.

    traced: a graph module of (*weights, *held, *rows). weights: their memory, which all steps share, so that views are taken once.
    held: how many buffers follow them. leads: of each argument with rows, how many of its axes count rows.
    tabled: what is made of a row alone is taken out of the step and left to `tables`; `rows` are then `entering` of them.
    """

    def __init__(self, traced: Any, weights: Sequence[Tensor], held: int, leads: Sequence[int], tabled: bool) -> None:
        graph = traced.graph
        _without_idle(graph)
        still = not any(_writes(node) for node in graph.nodes)  # else what is read depends on when: running statistics
        if still:
            _fold(traced, weights[0].device)
            _once(graph)
            _uniform(traced, weights[0].device)
            graph.eliminate_dead_code()  # some things are asked for by name alone
            _with_bias(graph)
            _views_last(graph)
        _narrow_first(graph)
        inputs = [node for node in graph.nodes if node.op == "placeholder"]
        self.leaves, self.leads = inputs[len(weights) + held :], leads
        known: dict[Any, Tensor] = dict(zip(inputs, weights, strict=False))
        for node in graph.nodes:
            if node.op == "get_attr":
                known[node] = getattr(traced, node.target)
            elif node.target in _VIEWS and node.args[0] in known and still:
                known[node] = node.target(known[node.args[0]], *node.args[1:], **node.kwargs)
        self.constants = known
        self.by_row = _by_row(graph, dict(zip(self.leaves, leads, strict=True)), known) if tabled and still else {}
        _softmax_along_rows(graph, self.by_row)
        rest = [node for node in graph.nodes if node.op in ("call_function", "output") and node not in known and node not in self.by_row]
        asked = {arg for node in rest for arg in node.all_input_nodes}
        fixed = [node for node in known if node in asked]
        self.fixed = [known[node] for node in fixed]
        self.entering = [node for node in self.by_row if node in asked] if self.by_row else self.leaves
        self.graph = _part([*fixed, *inputs[len(weights) : len(weights) + held], *self.entering], rest)
        _in_place(self.graph)
        self.step = torch.fx.GraphModule(torch.nn.Module(), self.graph).forward

    def __call__(self, held: Sequence[Tensor], rows: Sequence[Tensor]) -> Any:
        return self.step(*self.fixed, *held, *rows)

    @property
    def row_bytes(self) -> int:
        """What `tables` needs for a row, at most."""
        return sum(
            torch.Size(_known_shape(node)[self.leads[at] :]).numel() * node.meta["tensor_meta"].dtype.itemsize
            for node, at in {**self.by_row, **{leaf: at for at, leaf in enumerate(self.leaves)}}.items()
        )

    def tables(self, rows: Mapping[int, Tensor]) -> dict[int, Tensor]:
        """From some arguments, (N, ...) by place, what of them the step is given of each row: (N, ...) by place in `entering`."""
        made: dict[Any, Tensor] = {}
        for node, at in self.by_row.items():
            if at not in rows:
                continue
            if node.op == "placeholder":
                made[node] = rows[at]
                continue
            args: list[Any] = [made.get(arg, self.constants.get(arg, arg)) if isinstance(arg, torch.fx.Node) else arg for arg in node.args]
            if node.target in _ALONG:  # all axes of rows are one
                args[1] -= self.leads[at] - 1
            made[node] = node.target(*args, **node.kwargs)
        return {place: made[node].contiguous() for place, node in enumerate(self.entering) if node in made}


def _part(inputs: Sequence[Any], nodes: Sequence[Any]) -> Any:
    """A graph of its own of some nodes, which reads `inputs`."""
    graph, made = torch.fx.Graph(), dict[Any, Any]()
    for node in inputs:
        made[node] = graph.placeholder(node.name)
        made[node].meta = node.meta
    for node in nodes:
        made[node] = graph.node_copy(node, lambda arg: made[arg])
    return graph


def _by_row(graph: Any, leaves: Mapping[Any, int], constants: Mapping[Any, Tensor]) -> dict[Any, int]:
    """Nodes that are made of each row of one argument by itself, with the place of that argument."""
    places = {leaf: at for at, leaf in enumerate(leaves)}
    leads = list(leaves.values())
    found = dict(places)
    for node in graph.nodes:
        if node.op != "call_function" or not (_tagged(node, torch.Tag.pointwise) or node.target in _EACH) or _writes(node):
            continue
        of = {found[arg] for arg in node.all_input_nodes if arg in found}
        if len(of) != 1:
            continue
        (at,) = of
        shape, lead = _known_shape(node), leads[at]
        alike = all(
            (len(_known_shape(arg)) == len(shape) - (node.target == aten.unsqueeze.default) and _known_shape(arg)[:lead] == shape[:lead])
            if arg in found
            else arg in constants and constants[arg].dim() <= len(shape) - lead
            for arg in node.all_input_nodes
        )
        if alike and not (node.target in _ALONG and node.args[1] < lead):
            found[node] = at
    return found


def _fold(traced: Any, device: torch.device) -> None:
    """Makes what depends on no argument, or on the shape of one alone, once: the gradient of a mean, a weight of the objective."""
    graph, known = traced.graph, dict[Any, Any]()
    for node in list(graph.nodes):
        if node.op == "get_attr":
            known[node] = getattr(traced, node.target)
        if node.op != "call_function" or _tagged(node, torch.Tag.nondeterministic_seeded):
            continue
        args = list(node.args)
        if node.target in _LIKE:
            args[0] = torch.empty(_known_shape(args[0]), dtype=args[0].meta["tensor_meta"].dtype, device=device)
        elif not all(arg in known for arg in node.all_input_nodes):
            continue
        with torch.no_grad():
            known[node] = node.target(*[known.get(arg, arg) if isinstance(arg, torch.fx.Node) else arg for arg in args], **node.kwargs)
        name = f"_made_{node.name}"
        traced.register_buffer(name, known[node])
        with graph.inserting_before(node):
            other = graph.get_attr(name)
        other.meta, known[other] = node.meta, known.pop(node)
        node.replace_all_uses_with(other)
        graph.erase_node(node)


def _uniform(traced: Any, device: torch.device) -> None:
    """Constants that are one number all over become that number, and one that is 0 but for a place in each row a comparison."""
    graph = traced.graph

    def constant(node: Any, value: Tensor) -> Any:
        name = f"_number_{len(traced._buffers)}"
        traced.register_buffer(name, value)
        with graph.inserting_before(node):
            made = graph.get_attr(name)
        made.meta = {"val": value}
        return made

    def number(node: Any) -> Tensor | None:
        """What a constant is all over; None where it is no such constant."""
        value = getattr(traced, node.target) if node.op == "get_attr" else None
        return value.flatten()[0].clone() if value is not None and value.numel() and bool((value == value.flatten()[0]).all()) else None

    for node in list(graph.nodes):
        if node.op != "call_function":
            continue
        if node.target == aten.scatter.value:
            into, axis, at, value = node.args
            while at.target == aten.expand.default:
                at = at.args[0]
            shape, where, nothing = _known_shape(node), _known_shape(at), number(into)
            if nothing is not None and nothing == 0 and axis == len(shape) - 1 and where[-1] == 1 and len(shape) - len(where) <= 1:
                places = constant(node, torch.arange(shape[-1], device=device))
                given, rest = constant(node, nothing.new_tensor(value)), constant(node, nothing)
                with graph.inserting_before(node):
                    there = graph.call_function(aten.eq.Tensor, (at, places))
                    made = graph.call_function(aten.where.self, (there, given, rest))
                    whole = graph.call_function(aten.expand.default, (made, list(shape)))
                there.meta = made.meta = {"tensor_meta": node.meta["tensor_meta"]._replace(shape=torch.Size([*where[:-1], shape[-1]]))}
                whole.meta = node.meta
                node.replace_all_uses_with(whole)
                graph.erase_node(node)
        elif _tagged(node, torch.Tag.pointwise):
            for arg in node.all_input_nodes:
                others = [_known_shape(other) for other in node.all_input_nodes if other is not arg]
                found = number(arg) if others and len(_known_shape(arg)) else None
                if found is not None and torch.broadcast_shapes(*others) == _known_shape(node):
                    node.replace_input_with(arg, constant(node, found))


def _views_last(graph: Any) -> None:
    """What is done number by number to views of one form is done before they are taken; a view of a view is one, or none."""
    for node in list(graph.nodes):
        if node.op != "call_function" or _writes(node):
            continue
        args = node.all_input_nodes
        if _tagged(node, torch.Tag.pointwise) and args and all(arg.target in _FLAT for arg in args):
            sources = [arg.args[0] for arg in args]
            if len({_known_shape(arg) for arg in args}) == 1 and len({_shape(source) for source in sources}) == 1 and _shape(sources[0]):
                with graph.inserting_before(node):
                    inner = graph.node_copy(node, lambda arg: arg.args[0])
                    back = graph.call_function(aten.view.default, (inner, list(_known_shape(node))))
                inner.meta = {"tensor_meta": node.meta["tensor_meta"]._replace(shape=_known_shape(sources[0]))}
                back.meta = node.meta
                node.replace_all_uses_with(back)
                graph.erase_node(node)
        elif node.target in _FLAT and args[0].target in _FLAT:
            source = args[0].args[0]
            if _shape(source) == _known_shape(node):
                node.replace_all_uses_with(source)
                graph.erase_node(node)
            else:
                node.args = (source, *node.args[1:])
        elif node.target in _FLAT and args[0].target == aten.transpose.int and args[0].args[0].target in _FLAT:
            source = args[0].args[0].args[0]
            before, after = _shape(source), _known_shape(node)
            seen = _known_shape(args[0].args[0])
            turned = _axes(args[0]) == {len(seen) - 1, len(seen) - 2} and before is not None and seen[-2:] == before[1:]
            if turned and before is not None and after == torch.Size([before[0], before[2], before[1]]):
                with graph.inserting_before(node):
                    made = graph.call_function(aten.transpose.int, (source, 1, 2))
                made.meta = node.meta
                node.replace_all_uses_with(made)
                graph.erase_node(node)
    graph.eliminate_dead_code(is_impure_node=lambda node: node.op in ("placeholder", "output") or _writes(node))


def _once(graph: Any) -> None:
    """What is asked twice of the same is asked once."""
    seen: dict[Any, Any] = {}
    for node in list(graph.nodes):
        if node.op not in ("call_function", "get_attr"):
            continue
        first = seen.setdefault((node.op, node.target, repr(node.args), repr(node.kwargs)), node)
        if first is not node:
            node.replace_all_uses_with(first)
            graph.erase_node(node)


def _without_idle(graph: Any) -> None:
    """Takes out what changes neither numbers nor shape: a third of the nodes, each of which costs a call."""
    for node in list(graph.nodes):
        if node.op != "call_function":
            continue
        same = node.target in _SAME and _shape(node) is not None and _shape(node) == _shape(node.args[0])
        if same or (node.target == aten.mul.Scalar and node.args[1] == 1):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
        elif node.target == aten.transpose.int and node.args[0].target == aten.transpose.int and _axes(node) == _axes(node.args[0]):
            node.replace_all_uses_with(node.args[0].args[0])  # there and back
            graph.erase_node(node)


def _axes(node: Any) -> set[int]:
    return {axis % len(_known_shape(node)) for axis in node.args[1:]}


def _softmax_along_rows(graph: Any, but: Collection[Any]) -> None:
    """Softmaxes over few outcomes are taken over the last axis but one; not those of `but`."""
    for node in list(graph.nodes):
        if node in but:
            continue
        count = _SOFTMAX.get(node.target) or _SOFTMAX_BACKWARD.get(node.target)
        shape = _shape(node)
        if count is None or shape is None or len(shape) < 3 or node.args[count] != len(shape) - 1 or shape[-1] >= _FEW:
            continue
        with graph.inserting_before(node):
            turned = [graph.call_function(aten.transpose.int, (arg, -2, -1)) for arg in node.args[:count]]
            inner = graph.call_function(node.target, (*turned, len(shape) - 2, *node.args[count + 1 :]), node.kwargs)
            back = graph.call_function(aten.transpose.int, (inner, -2, -1))
        back.meta = node.meta
        node.replace_all_uses_with(back)
        graph.erase_node(node)


def _with_bias(graph: Any) -> None:
    """A product and what is added to each of its rows, at once."""
    for node in list(graph.nodes):
        if node.target != aten.add.Tensor or node.kwargs or not all(isinstance(arg, torch.fx.Node) for arg in node.args):
            continue
        for whole, bias in (node.args, node.args[::-1]):
            product = whole.args[0] if whole.target in _FLAT else whole
            if product.target != aten.bmm.default or len(whole.users) > 1 or len(product.users) > 1:
                continue
            shape, of = _known_shape(product), _shape(bias)
            if of is None or of[-2:] != (1, shape[2]) or of[:-2] != _known_shape(whole)[:-2] or _known_shape(node) != _known_shape(whole):
                continue
            with graph.inserting_before(node):
                flat = graph.call_function(aten.view.default, (bias, [shape[0], 1, shape[2]]))
                both = graph.call_function(aten.baddbmm.default, (flat, *product.args))
                back = graph.call_function(aten._unsafe_view.default, (both, list(_known_shape(node))))
            flat.meta = {"val": torch.empty((shape[0], 1, shape[2]), device="meta")}
            both.meta, back.meta = product.meta, node.meta
            node.replace_all_uses_with(back)
            for gone in dict.fromkeys((node, whole, product)):
                graph.erase_node(gone)
            break


def _narrow_first(graph: Any) -> None:
    """A product whose first factor is turned and whose width is odd is slower than the same product turned."""
    for node in list(graph.nodes):
        shape = _shape(node)
        if node.target != aten.bmm.default or shape is None or shape[2] % _WIDTH == 0 or shape[1] % _WIDTH or shape[2] < _WIDTH:
            continue
        with graph.inserting_before(node):
            turned = [graph.call_function(aten.transpose.int, (arg, 1, 2)) for arg in node.args[::-1]]
            inner = graph.call_function(aten.bmm.default, tuple(turned))
            back = graph.call_function(aten.transpose.int, (inner, 1, 2))
        back.meta = node.meta
        node.replace_all_uses_with(back)
        graph.erase_node(node)


def _in_place(graph: Any) -> None:
    """Lets a step write a layer's bias, its ReLU and the gradient of that into the product they are applied to.

    Nobody else reads these products, and a stack of them is larger than the caches: memory that is not touched anew is time saved.
    """
    made = (aten.bmm.default, aten.mm.default, aten.baddbmm.default, aten.add_.Tensor)

    def own(node: Any) -> bool:
        """Whether the node is a product, or a view of one, that has one reader."""
        while getattr(node, "target", None) in _FLAT and len(node.users) == 1:
            node = node.args[0]
        return getattr(node, "target", None) in made and len(node.users) == 1

    for node in graph.nodes:
        if node.target == aten.add.Tensor and not node.kwargs and all(hasattr(arg, "target") for arg in node.args):
            into, other = (node.args[1], node.args[0]) if own(node.args[1]) else node.args
            if own(into) and _shape(into) is not None and _shape(into) == _shape(node):
                node.target, node.args = aten.add_.Tensor, (into, other)
        elif node.target == aten.relu.default and own(node.args[0]):
            node.target = aten.relu_.default
        elif node.target == aten.threshold_backward.default and own(node.args[0]):
            node.target, node.kwargs = aten.threshold_backward.grad_input, {"grad_input": node.args[0]}
        elif node.target == aten.view.default and node.args[0].target in _TURNS:  # what was written in place may lie otherwise by now
            node.target = aten.reshape.default


def _writes(node: Any) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _tagged(node: Any, tag: torch.Tag) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and tag in node.target.tags


def _shape(node: Any) -> torch.Size | None:
    """Of what a node makes; a constant that was there before carries it otherwise than what is computed."""
    known = node.meta.get("tensor_meta", node.meta.get("val"))
    return getattr(known, "shape", None)


def _known_shape(node: Any) -> torch.Size:
    shape = _shape(node)
    assert shape is not None, node
    return shape
