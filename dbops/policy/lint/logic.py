"""A predicate worked out in SQL's three-valued logic for somebody who has no identity."""

from __future__ import annotations

from sqlglot import exp

from dbops.policy.lint.predicate import bare, identities, parsed, wrapped
from dbops.policy.model import Auth

# NULL where an operand is
_STRICT = (
    exp.Binary,
    exp.Dot,
    exp.Cast,
    exp.Nullif,
    exp.Neg,
    exp.Lower,
    exp.Upper,
    exp.Trim,
    exp.Anonymous,
    exp.Between,
)


def always_true(text: str) -> bool:
    tree = parsed(text)
    return tree is not None and _is(_opening(reduced(tree, Auth())), True)


def open_without_identity(text: str, auth: Auth, never_null: frozenset[str] = frozenset()) -> bool:
    """Whether a test for NULL lets somebody in who has no identity at all. `never_null`: the NOT NULL columns.

    The tree is worked out in three-valued logic with NULL for the identity; once more with such tests answered NULL.
    """
    tree = parsed(text)
    if tree is None or not any(identities(tree, auth)):
        return False
    opened = _opening(reduced(tree, auth, never_null))
    closed = _opening(reduced(tree, auth, never_null, null_tests=False))
    return not _is(opened, False) and opened != closed


def reduced(
    tree: exp.Expression, auth: Auth, never_null: frozenset[str] = frozenset(), *, null_tests: bool = True
) -> exp.Expression:
    """The tree worked out as far as it goes with the identity NULL; what depends on the row stays as it is.

    `c = c` counts as true.
    """
    known = {id(node) for node in identities(tree, auth)}
    return _Reduction(known, never_null, null_tests).of(tree)


def _is(node: exp.Expression, value: bool) -> bool:
    return isinstance(node, exp.Boolean) and bool(node.this) is value


def _opening(node: exp.Expression) -> exp.Expression:
    """What of a worked-out tree can be true: NULL lets nobody in, as FALSE does."""
    if isinstance(node, exp.Null):
        return exp.false()
    if isinstance(node, (exp.And, exp.Or)):
        return _joined(type(node), _opening(node.this), _opening(node.expression))
    if isinstance(node, exp.Coalesce) and all(_is(_opening(each), False) for each in (node.this, *node.expressions)):
        return exp.false()
    return node


def _joined(kind: type[exp.Expression], left: exp.Expression, right: exp.Expression) -> exp.Expression:
    """AND or OR of two, exactly as SQL has it."""
    decides = kind is exp.Or  # TRUE decides an OR, FALSE an AND
    if _is(left, decides) or _is(right, decides):
        return exp.Boolean(this=decides)
    if _is(left, not decides) or left == right:
        return right
    if _is(right, not decides):
        return left
    return kind(this=left.copy(), expression=right.copy())


def _negated(node: exp.Expression) -> exp.Expression:
    if isinstance(node, exp.Boolean):
        return exp.Boolean(this=not node.this)
    if isinstance(node, (exp.And, exp.Or)):  # De Morgan, so that a NULL within is seen
        other = exp.Or if isinstance(node, exp.And) else exp.And
        return _joined(other, _negated(node.this), _negated(node.expression))
    return node if isinstance(node, exp.Null) else exp.Not(this=exp.Paren(this=node.copy()))


class _Reduction:
    """SQL's three-valued logic over a tree: TRUE, FALSE, NULL, or an expression that depends on the row."""

    def __init__(self, identities: set[int], never_null: frozenset[str], null_tests: bool) -> None:
        self.identities = identities
        self.never_null = never_null
        self.null_tests = null_tests

    def of(self, node: exp.Expression) -> exp.Expression:
        node = self._inner(node)
        if id(node) in self.identities:
            return exp.Null()
        if isinstance(node, (exp.And, exp.Or)):
            return _joined(type(node), self.of(node.this), self.of(node.expression))
        if isinstance(node, exp.Not):
            return _negated(self.of(node.this))
        if isinstance(node, exp.Is):
            return self._tested(node)
        if isinstance(node, (exp.NullSafeEQ, exp.NullSafeNEQ)):
            return self._distinct(node)
        if isinstance(node, exp.Coalesce):
            return self._coalesced(node)
        if isinstance(node, exp.Case) and node.this is None:
            return self._chosen(node)
        if isinstance(node, exp.Exists):
            return exp.false() if self._finds_nothing(node.this) else node
        if isinstance(node, exp.In):
            return self._among(node)
        return self._strict(node)

    def _inner(self, node: exp.Expression) -> exp.Expression:
        """Without parentheses, a subselect of nothing but this expression, and the cast of a constant."""
        while id(node) not in self.identities:
            inner = node.this if isinstance(node, (exp.Paren, exp.Alias)) else wrapped(node)
            if inner is None and isinstance(node, exp.Cast) and isinstance(bare(node), (exp.Literal, exp.Null)):
                inner = node.this
            if inner is None:
                break
            node = inner
        return node

    def _tested(self, node: exp.Expression) -> exp.Expression:
        """IS NULL, IS TRUE, IS FALSE."""
        left, wanted = self.of(node.this), node.expression
        # `IS NOT NULL` is a NOT around it in some releases of sqlglot, an attribute in others
        negate = bool(node.args.get("negate"))
        if left.find(exp.Null) and not self.null_tests:
            return exp.Null()
        if isinstance(wanted, exp.Null) and (self._never_null(left) or isinstance(left, (exp.Literal, exp.Boolean))):
            return exp.Boolean(this=negate)
        if isinstance(left, (exp.Null, exp.Boolean)) and isinstance(wanted, (exp.Null, exp.Boolean)):
            return exp.Boolean(this=(left == wanted) is not negate)
        return exp.Is(
            this=exp.Paren(this=left.copy()), expression=wanted.copy(), **({"negate": True} if negate else {})
        )

    def _distinct(self, node: exp.Expression) -> exp.Expression:
        left, right = self.of(node.this), self.of(node.expression)
        if isinstance(left, exp.Null) or isinstance(right, exp.Null):
            other = right if isinstance(left, exp.Null) else left
            if not self.null_tests:
                return exp.Null()
            is_null: exp.Expression = exp.Is(this=other.copy(), expression=exp.Null())
            if isinstance(other, (exp.Null, exp.Boolean, exp.Literal)) or self._never_null(other):
                is_null = exp.Boolean(this=isinstance(other, exp.Null))
            return _negated(is_null) if isinstance(node, exp.NullSafeNEQ) else is_null
        return type(node)(this=left.copy(), expression=right.copy())

    def _never_null(self, node: exp.Expression) -> bool:
        return isinstance(node, exp.Column) and node.name in self.never_null

    def _coalesced(self, node: exp.Expression) -> exp.Expression:
        values = [self.of(each) for each in (node.this, *node.expressions)]
        if not self.null_tests and values[0].find(exp.Null):
            return exp.Null()
        left = [each for each in values if not isinstance(each, exp.Null)]
        sure = isinstance(left[0], (exp.Literal, exp.Boolean)) or self._never_null(left[0]) if left else True
        if sure or len(left) == 1:
            return left[0] if left else exp.Null()
        return exp.Coalesce(this=left[0].copy(), expressions=[each.copy() for each in left[1:]])

    def _chosen(self, node: exp.Case) -> exp.Expression:
        """CASE WHEN: without the branches whose condition is never true, up to the first whose is."""
        branches = []
        default = self.of(node.args["default"]) if node.args.get("default") else exp.Null()
        for branch in node.args["ifs"]:
            held = _opening(self.of(branch.this))
            if _is(held, True):
                default = self.of(branch.args["true"])
                break
            if not _is(held, False):
                branches.append(exp.If(this=held.copy(), true=self.of(branch.args["true"]).copy()))
        return exp.Case(ifs=branches, default=default.copy()) if branches else default

    def _finds_nothing(self, query: exp.Expression) -> bool:
        """Whether the condition of a query over tables is never true; a query with groups has a row even so."""
        select = query.this if isinstance(query, exp.Subquery) else query
        where = select.args.get("where") if isinstance(select, exp.Select) else None
        if where is None or select.find(exp.AggFunc):
            return False
        return _is(_opening(self.of(where.this)), False)

    def _among(self, node: exp.In) -> exp.Expression:
        query = node.args.get("query")
        if query is not None and self._finds_nothing(query):
            return exp.false()
        if not isinstance(self.of(node.this), exp.Null):
            return node
        # NULL among no rows at all is FALSE, not NULL
        return exp.And(this=exp.Null(), expression=node.copy()) if query is not None else exp.Null()

    def _strict(self, node: exp.Expression) -> exp.Expression:
        """An operator or function: NULL where an operand is, TRUE for equal things compared."""
        if not isinstance(node, _STRICT):
            return node
        if node.find(exp.Any, exp.All):  # over nothing they are FALSE and TRUE, not NULL
            return node
        operands = [self.of(each) for each in node.iter_expressions() if not isinstance(each, exp.DataType)]
        if any(isinstance(each, exp.Null) for each in operands):
            return exp.Null()
        if isinstance(node, exp.EQ) and operands[0] == operands[1]:
            return exp.true()
        return node
