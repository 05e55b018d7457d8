"""What stands in a statement: literals, parentheses, calls and their arguments, parts that are expressions; found by the letter, without a grammar.
"""

import json
import re

LITERAL = r"'(?:[^']|'')*'"
TYPE = r"[a-z]\w*(?: with(?:out)? time zone| precision| varying)?(?:\(-?\d+(?:, ?-?\d+)?\))?(?: with(?:out)? time zone)?(?:\[\])*"
_CAST = re.compile(rf"::{TYPE}")
_CASTED = re.compile(rf"(?:{LITERAL}|\b[a-z][\w.]*)(?=::)")
_CAST_OF_LITERAL = re.compile(rf"(?P<head>CAST\()?(?P<literal>{LITERAL})(?P<tail>::{TYPE}| AS {TYPE}\))")
_TYPED_LITERAL = re.compile(rf"{LITERAL}|(?<!::)\b(?P<type>{TYPE}) (?P<literal>{LITERAL})")
_NUMBER = re.compile(rf"{LITERAL}|(?:::| AS ){TYPE}|\$\d+|(?P<number>(?<![\w.])\d+(?:\.\d+)?(?:e[-+]?\d+)?(?![\w.]))")
_PARAMETERS = re.compile(r" /\*(\{.*\})\*/$")
_WORDS = "AND|OR|(?:NOT )?BETWEEN(?: SYMMETRIC)?|(?:NOT )?LIKE|IS(?: NOT)?(?: DISTINCT_FROM)?"
_CLAUSES = re.compile(r" (?:GROUP BY|HAVING|ORDER BY|LIMIT|OFFSET|FETCH|UNION|INTERSECT|EXCEPT)\b")


def parameters(statement):
    """The statement without the comment that has its parameters, and what the comment says; None where it has none."""
    match = _PARAMETERS.search(statement)
    return (statement[: match.start()], json.loads(match[1])) if match else (statement, None)


def with_parameters(part, options):
    """A part of a statement with the parameters of the whole; those that the part does not have are NULL."""
    if options is None:
        return part
    values, types = list(options.get("values", [])), list(options.get("types", []))
    for index in range(len(values)):
        if not re.search(rf"\${index + 1}\b", part):
            values[index], types[index] = None, 25
    return f"{part} /*{json.dumps({**options, 'values': values, 'types': types})}*/"


def masked(text):
    """The text with nothing in its literals, of the same length."""
    return re.sub(LITERAL, lambda match: "'" + "_" * (len(match[0]) - 2) + "'", text)


def flat(text):
    """The text with nothing in its literals, parentheses and brackets, of the same length."""
    made, depth = [], 0
    for sign in masked(text):
        depth -= sign in ")]"
        made.append("_" if depth else sign)
        depth += sign in "(["
    return "".join(made).replace(" DISTINCT FROM ", " DISTINCT_FROM ")  # it is an operator


def closing(mask, position):
    """Where what is opened there is closed."""
    depth = 0
    for index in range(position, len(mask)):
        depth += (mask[index] in "([") - (mask[index] in ")]")
        if not depth:
            return index
    return len(mask) - 1


def split(text):
    """What commas part, outside of parentheses."""
    ends = [index for index, sign in enumerate(flat(text)) if sign == ","]
    return [text[start:end].strip() for start, end in zip([0, *(end + 1 for end in ends)], [*ends, len(text)])]


def calls(text, name):
    """(start, end, what is in its parentheses) of each call of a function."""
    mask = masked(text)
    for match in re.finditer(rf"\b{name}\(", mask):
        end = closing(mask, match.end() - 1)
        yield match.start(), end + 1, text[match.end():end]


def source(text):
    """The statement's own FROM .. WHERE .., '' where it has none."""
    shown = flat(text)
    start = shown.find(" FROM ")
    if start < 0:
        return ""
    clause = _CLAUSES.search(shown, start)
    return text[start: clause.start() if clause else len(text)]


def hidden(text, numbers=False):
    """The text with parameters in place of its literals with a type, and with `numbers` of its numbers, too; and the literals. Equal ones have one parameter."""
    found = {}

    def change(match):
        if match["head"] is None and not match["tail"].startswith("::"):
            return match[0]  # a name for the value
        place = found.setdefault((match["literal"], re.match(rf"(?:::| AS )({TYPE})", match["tail"])[1]), len(found) + 1)
        return f"{match['head'] or ''}${place}{match['tail']}"

    def change_number(match):
        if match["number"] is None:
            return match[0]
        spelled = "numeric" if re.search("[.e]", match["number"]) else "integer" if int(match["number"]) < 1 << 31 else "bigint"
        return f"${found.setdefault((quoted(match['number']), spelled), len(found) + 1)}::{spelled}"

    text = _TYPED_LITERAL.sub(lambda match: f"{match['literal']}::{match['type']}" if match["type"] else match[0], text)
    text = _CAST_OF_LITERAL.sub(change, text)
    if numbers:
        text = _NUMBER.sub(change_number, text)
    return text, [literal for literal, _ in found]


def quoted(text):
    return "'" + text.replace("'", "''") + "'"


def _operands(text):
    """What stands between operators, where it is an operand: each alone, and those with * and / between them together."""
    shown = flat(text)
    for operators in (rf" (?:{_WORDS}|[-+*/%^<>=~!@#&|?]+) ", rf" (?:{_WORDS}|(?![*/%^] )[-+*/%^<>=~!@#&|?]+) "):
        cuts = [match.span() for match in re.finditer(operators, shown)]
        yield from (text[start:end].strip() for start, end in zip([0, *(end for _, end in cuts)], [*(start for start, _ in cuts), len(text)]))


def parts(text):
    """Every part that may be an expression of its own: calls, operands, what stands in parentheses and between commas, casts, CASE .. END; the shortest first."""
    mask, spans, found = masked(text), [], {}
    shown = re.search(r"(?: AS \w+)?(?: FROM .*)?$", flat(text), re.DOTALL)
    listed = split(text.removeprefix("SELECT ")[: (shown.start() - len(text)) or None])
    for position in (index for index, sign in enumerate(mask) if sign in "(["):
        end, name = closing(mask, position), re.search(r"\w*$", mask[:position])[0]
        spans.append((position - len(name), end + 1))
        listed += [re.sub(rf" AS {TYPE}$", "", part) for part in split(text[position + 1:end])]
    for part in listed:
        found.update(dict.fromkeys([part, *_operands(part)]))
    spans += [match.span() for match in _CASTED.finditer(text)]
    begun = []
    for match in re.finditer(r"\b(CASE|END)\b", mask):
        if match[1] == "CASE":
            begun.append(match.start())
        elif begun:
            spans.append((begun.pop(), match.end()))
    for start, end in spans:
        if text[:start].endswith("::"):
            continue  # a type
        found[text[start:end]] = None
        while cast := _CAST.match(text, end):
            end = cast.end()
            found[text[start:end]] = None
    return sorted((part for part in found if re.search(r"\W", part) and not re.fullmatch(LITERAL, part)), key=len)
