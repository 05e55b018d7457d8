"""Which operators, functions and other forms of expression there are, with their types.

The signatures come from the catalog of the PostgreSQL that is compared with; here stand the names that its manual documents, the forms that have a syntax of their own, and hints
for arguments that not any text will do for (a pattern, a field, a format). A `Form` makes an expression of type `result` out of one for each of `arguments`.
"""

from dataclasses import dataclass

from .values import ELEMENTS, SCALARS, TYPES


@dataclass(frozen=True)
class Form:
    name: str
    result: str
    arguments: tuple
    template: str  # {} for each argument
    operator: bool = False  # operands that are operators need parentheses
    hints: tuple = ()  # (position, name in HINTS)


NAMES = set("""
abs cbrt ceil ceiling degrees div exp factorial floor gcd lcm ln log log10 min_scale mod pi power radians round scale sign sqrt trim_scale trunc width_bucket
acos acosd asin asind atan atand atan2 cos cosd cot sin sind tan tand sinh cosh tanh asinh acosh atanh
ascii bit_length btrim char_length chr decode encode initcap left length lower lpad ltrim md5 octet_length overlay position quote_ident quote_literal quote_nullable regexp_count
regexp_instr
regexp_like regexp_match regexp_replace regexp_substr repeat replace reverse right rpad rtrim split_part starts_with string_to_array strpos substr substring to_hex translate
unistr upper normalize
get_bit get_byte set_bit set_byte sha224 sha256 sha512 bit_count like notlike
age date_bin date_part date_trunc extract isfinite justify_days justify_hours justify_interval make_date make_interval make_time make_timestamp make_timestamptz to_timestamp
timezone
to_char to_date to_number
array_append array_cat array_dims array_fill array_length array_lower array_ndims array_position array_positions array_prepend array_remove array_replace array_to_string
array_upper cardinality
trim_array
to_jsonb jsonb_array_length jsonb_object jsonb_strip_nulls jsonb_typeof jsonb_set jsonb_insert jsonb_pretty jsonb_concat jsonb_exists
generate_series unnest regexp_matches regexp_split_to_table regexp_split_to_array string_to_table jsonb_array_elements jsonb_array_elements_text jsonb_object_keys jsonb_each
jsonb_each_text
generate_subscripts
count sum avg min max bool_and bool_or every bit_and bit_or bit_xor string_agg array_agg jsonb_agg stddev stddev_pop stddev_samp variance var_pop var_samp corr covar_pop covar_samp
regr_avgx regr_avgy regr_count regr_intercept regr_r2 regr_slope regr_sxx regr_sxy regr_syy
""".split())

HINTS = {
    "pattern": ("a", "b+", "^a", "[a-c]", "(a)(b)?", ".", "\\d+", "(?i)B", "a|b", "x*", "^$", "(", "\\mfoo", "[[:alpha:]]+", "o\\s?W"),
    "like": ("%", "a%", "_b%", "%\\%%", "a\\_b", "", "%B%", "__", "Hello%"),
    "similar": ("%(a|b)%", "a_*", "[abc]+", "a{2}", "%"),
    "flags": ("", "g", "i", "gi", "n", "x", "q"),
    "field": ("year", "month", "day", "hour", "minute", "second", "millisecond", "microseconds", "dow", "isodow", "doy", "week", "quarter", "decade", "century", "millennium",
              "epoch", "isoyear",
              "julian", "timezone", "DAY"),
    "unit": ("year", "month", "day", "hour", "minute", "second", "week", "quarter", "decade", "century", "millennium", "milliseconds", "nosuch"),
    "time_format": ("YYYY-MM-DD HH24:MI:SS", "Day, DD Month YYYY", "FMDay FMDD FMMonth", "HH12:MI AM", "Q WW IW IYYY", "J", "US MS", "TZ OF", "YY YYY Y BC", "D ID DDD", "DDth",
                    "Mon DY", "SSSS", "RM",
                    '"text" CC', "HH24:MI:SS.US", "tmMonth"),
    "number_format": ("999", "9999.99", "0000", "FM999.00", "S999", "999MI", "9,999.9", "RN", "999th", "V99", "PR999", "$99", "9.99EEEE", "L999D99", "FM9990.099", "999PR",
                      "G999", ""),
    "number_text": ("12", "-12.34", "1,234.5", "12-", "<7>", " 5"),
    "date_text": ("2024-02-29", "29 Feb 2024", "2024-060", "20240229", "12:34:56", "2024-13-01", "99"),
    "date_format": ("YYYY-MM-DD", "DD Mon YYYY", "YYYY-DDD", "YYYYMMDD", "HH24:MI:SS", "YY", "YYYY"),
    "encoding": ("hex", "base64", "escape", "nosuch"),
    "zone": ("UTC", "Europe/Berlin", "America/New_York", "+05:30", "Asia/Kathmandu", "PST", "nosuch/zone"),
    "form": ("NFC", "NFKD"),
    "delimiter": (",", "", " ", "ab", "_"),
    "template": ("%s", "%I", "%L", "%s and %s", "%2$s %1$s", "%5s|", "%-5s|", "%%", "a", "%*s", "%1$*2$s"),
    "path": ("{a}", "{a,c}", "{0}", "{a,c,-1}", "{}", "{1,0}", "{b}"),
    "key": ("a", "b", "aa", "", "c"),
    "few": ("0", "1", "2", "3", "5", "-1", "10", "2147483647"),
    "small": ("0", "1", "2", "3", "5", "-1", "10"),
    "step": ("1 day", "12 hours", "1 mon", "-1 day", "1 day 01:00:00", "0"),
    "stride": ("1 day", "15 minutes", "1 week", "2 hours 30 minutes", "1 mon", "0"),
}

# name: {position: hint}
_ARGUMENT_HINTS = {
    "date_trunc": {0: "unit", 2: "zone"}, "date_part": {0: "field"}, "to_date": {0: "date_text", 1: "date_format"}, "to_timestamp": {0: "date_text", 1: "date_format"},
    "to_number": {0: "number_text", 1: "number_format"},
    "encode": {1: "encoding"}, "decode": {1: "encoding"}, "timezone": {0: "zone"}, "repeat": {1: "few"}, "lpad": {1: "few"}, "rpad": {1: "few"},
    "left": {1: "few"}, "right": {1: "few"}, "split_part": {1: "delimiter", 2: "few"}, "string_to_array": {1: "delimiter"}, "string_to_table": {1: "delimiter"},
    "array_to_string": {1: "delimiter"},
    "regexp_count": {1: "pattern", 2: "few", 3: "flags"}, "regexp_instr": {1: "pattern", 2: "few", 3: "few", 4: "few", 5: "flags", 6: "few"},
    "regexp_like": {1: "pattern", 2: "flags"},
    "regexp_match": {1: "pattern", 2: "flags"}, "regexp_matches": {1: "pattern", 2: "flags"}, "regexp_substr": {1: "pattern", 2: "few", 3: "few", 4: "flags", 5: "few"},
    "regexp_split_to_table": {1: "pattern", 2: "flags"}, "regexp_split_to_array": {1: "pattern", 2: "flags"}, "substring": {1: "pattern"}, "normalize": {1: "form"},
    "date_bin": {0: "stride"},
    "jsonb_set": {1: "path"}, "jsonb_insert": {1: "path"}, "generate_series": {0: "small", 1: "small", 2: "small"}, "array_fill": {1: "few"}, "get_bit": {1: "few"},
    "get_byte": {1: "few"},
    "set_bit": {1: "few", 2: "few"}, "set_byte": {1: "few"}, "substr": {1: "few", 2: "few"}, "overlay": {2: "few", 3: "few"}, "factorial": {0: "small"}, "trim_array": {1: "few"},
    "array_length": {1: "few"}, "array_upper": {1: "few"}, "array_lower": {1: "few"}, "like": {1: "like"}, "notlike": {1: "like"}, "make_timestamptz": {6: "zone"},
    "generate_subscripts": {1: "few"},
}
_OPERATOR_HINTS = {"~": "pattern", "!~": "pattern", "~*": "pattern", "!~*": "pattern", "~~": "like", "!~~": "like", "~~*": "like", "!~~*": "like", "#>": "path", "#>>": "path",
                   "->": "key", "->>": "key",
                   "?": "key", "#-": "path"}
# Operators of indexes, and those that only compare bit patterns.
_NOT_OPERATORS = ("~<~", "~<=~", "~>=~", "~>~", "@@", "@?", "*=", "*<>")

_CATALOG = """
SELECT p.proname, p.prorettype::regtype::text, array(SELECT t::regtype::text FROM unnest(p.proargtypes) WITH ORDINALITY AS u(t, o) ORDER BY o)::text, p.prokind::text,
p.proretset::text
  FROM pg_proc p WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind IN ('f', 'a') AND p.provolatile <> 'v' AND p.provariadic = 0 ORDER BY 1, 3, 2
"""
_OPERATORS = """
SELECT oprname, oprresult::regtype::text, oprleft::regtype::text, oprright::regtype::text FROM pg_operator WHERE oprcode <> 0 ORDER BY 1, 3, 4
"""
_ANY_ELEMENT = ("anyelement", "anynonarray", "anycompatible", "anycompatiblenonarray")
_ANY_ARRAY = ("anyarray", "anycompatiblearray")


def _short(spelled):
    """`integer[]` -> `int4[]`; None for a type that is not compared."""
    base, array = (spelled[:-2], "[]") if spelled.endswith("[]") else (spelled, "")
    base = {"character": "bpchar"}.get(base, base)
    for name, kind in SCALARS.items():
        if base == name or base in kind.names:
            return name + array if name + array in TYPES else None
    return base if base in (*_ANY_ELEMENT, *_ANY_ARRAY) else None


def _expanded(types):
    """The signature for each element type, where it is polymorphic; nothing where a type is not compared."""
    types = [_short(spelled) for spelled in types]
    if None in types:
        return
    if any(name in _ANY_ARRAY for name in types):
        choices = ELEMENTS
    elif any(name in _ANY_ELEMENT for name in types):
        choices = tuple(SCALARS)
    else:
        choices = ("",)
    for element in choices:
        concrete = [f"{element}[]" if name in _ANY_ARRAY else element if name in _ANY_ELEMENT else name for name in types]
        if all(name in TYPES for name in concrete):
            yield concrete


def _hints(name, arguments):
    if name == "to_char":
        return ((1, "number_format" if arguments[0] in ("int4", "int8", "float4", "float8", "numeric") else "time_format"),)
    return tuple((position, hint) for position, hint in _ARGUMENT_HINTS.get(name, {}).items()
                 if position < len(arguments) and not (hint in ("few", "small") and arguments[position] not in ("int4", "int8", "numeric"))
                 and not (hint == "pattern" and arguments[position] != "text"))


# Forms with a syntax of their own. T and U stand for each type of the group behind the bar; a group is `all`, `scalar`, `element` or types.
_SPECIAL = """
CASE WHEN {} THEN {} ELSE {} END : T = bool T T | all
CASE WHEN {} THEN {} WHEN {} THEN {} END : T = bool T bool T | all
CASE {} WHEN {} THEN {} ELSE {} END : text = T T text text | scalar
COALESCE({}, {}) : T = T T | all
COALESCE({}, {}, {}) : T = T T T | all
NULLIF({}, {}) : T = T T | all
GREATEST({}, {}, {}) : T = T T T | all
LEAST({}, {}) : T = T T | all
{} IS NULL : bool = T | all
{} IS NOT NULL : bool = T | all
{} IS DISTINCT FROM {} : bool = T T | all
{} IS NOT DISTINCT FROM {} : bool = T T | all
{} IN ({}, {}, {}) : bool = T T T T | all
{} NOT IN ({}, {}) : bool = T T T | all
{} BETWEEN {} AND {} : bool = T T T | all
{} NOT BETWEEN {} AND {} : bool = T T T | all
{} BETWEEN SYMMETRIC {} AND {} : bool = T T T | scalar
{} = ANY ({}) : bool = T T[] | element
{} <> ALL ({}) : bool = T T[] | element
{} > ANY ({}) : bool = T T[] | element
{} <= ALL ({}) : bool = T T[] | element
({})[{}] : T = T[] int4:few | element
({})[{}:{}] : T[] = T[] int4:few int4:few | element
ARRAY[{}, {}] : T[] = T T | element
ARRAY[{}] : T[] = T | element
ROW({}, {}) = ROW({}, {}) : bool = T int4 T int4 | scalar
ROW({}, {}) < ROW({}, {}) : bool = T text T text | scalar
ROW({}, {}) IS NULL : bool = T int4 | scalar
ROW({}, {}) IS NOT NULL : bool = T int4 | scalar
ROW({}, {}) IS DISTINCT FROM ROW({}, {}) : bool = T int4 T int4 | scalar
({}, {}) IN (({}, {}), ({}, {})) : bool = T int4 T int4 T int4 | scalar
ROW({}, {})::text : text = T text | all
{} IS TRUE : bool = bool
{} IS NOT TRUE : bool = bool
{} IS FALSE : bool = bool
{} IS UNKNOWN : bool = bool
{} IS NOT UNKNOWN : bool = bool
NOT {} : bool = bool
{} AND {} : bool = bool bool
{} OR {} : bool = bool bool
{} LIKE {} : bool = T text:like | text varchar bpchar
{} NOT LIKE {} ESCAPE '_' : bool = text text:like
{} ILIKE {} : bool = text text:like
{} SIMILAR TO {} : bool = text text:similar
{} LIKE ANY (ARRAY[{}, {}]) : bool = text text:like text:like
concat({}, {}) : text = T text | all
concat_ws({}, {}, {}) : text = text T text | all
format({}, {}, {}) : text = text:template T text | all
num_nulls({}, {}) : int4 = T text | all
num_nonnulls({}, {}) : int4 = T text | all
substring({} FROM {} FOR {}) : text = text int4:few int4:few
substring({} FROM {}) : text = text text:pattern
substring({} SIMILAR {} ESCAPE '#') : text = text text:similar
position({} IN {}) : int4 = text text
overlay({} PLACING {} FROM {} FOR {}) : text = text text int4:few int4:few
trim(BOTH {} FROM {}) : text = text text
trim(LEADING {} FROM {}) : text = text text
trim({}) : text = T | text varchar bpchar
{} AT TIME ZONE {} : timestamptz = timestamp text:zone
{} AT TIME ZONE {} : timestamp = timestamptz text:zone
({}, {}) OVERLAPS ({}, {}) : bool = timestamp timestamp timestamp interval
jsonb_build_array({}, {}) : jsonb = T text | all
jsonb_build_object({}, {}) : jsonb = text:key T | all
jsonb_build_object({}, {}, {}, {}) : jsonb = text:key int4 text:key T | scalar
jsonb_extract_path({}, {}, {}) : jsonb = jsonb text:key text:key
jsonb_extract_path_text({}, {}) : text = jsonb text:key
({})[{}] : jsonb = jsonb text:key
{} COLLATE "C" : text = text
extract(year FROM {}) : numeric = T | date timestamp timestamptz interval
extract(epoch FROM {}) : numeric = T | date timestamp timestamptz interval time
extract(day FROM {}) : numeric = T | date timestamp timestamptz interval
extract(week FROM {}) : numeric = T | date timestamp
extract(dow FROM {}) : numeric = T | date timestamp timestamptz
extract(century FROM {}) : numeric = T | date timestamp
extract(second FROM {}) : numeric = T | time timestamp interval
extract(microseconds FROM {}) : numeric = T | time timestamp interval
(SELECT {}) : T = T | all
convert_from(convert_to({}, 'UTF8'), 'UTF8') : text = text
pg_typeof({})::text : text = T | all
"""

# Casts to types with a length, precision or range; besides these every type is cast to every other where PostgreSQL can.
_MODIFIED = {"varchar": ("varchar(2)", "varchar(10)"), "bpchar": ("char(3)", "char", "character(6)"), "numeric": ("numeric(5,2)", "numeric(4)", "numeric(38,10)", "numeric(3,-1)"),
             "timestamp": ("timestamp(0)", "timestamp(3)"), "timestamptz": ("timestamptz(2)",), "time": ("time(0)", "time(3)"),
             "interval": ("interval(0)", "interval month", "interval day to minute"),
             "float8": ("float(53)",), "float4": ("float(10)",), "varchar[]": (), "text": ("varchar(3)[]",), "numeric[]": ("numeric(6,1)[]",)}
_GROUPS = {"all": tuple(TYPES), "scalar": tuple(SCALARS), "element": ELEMENTS}


def _special():
    for line in _SPECIAL.strip().splitlines():
        template, rest = line.split(" : ", 1)
        signature, _, group = rest.partition(" | ")
        result, arguments = signature.split(" = ")
        for element in _GROUPS.get(group, group.split()) or ("",):
            words = [word.partition(":") for word in arguments.split()]
            types = tuple(word.replace("T", element) for word, _, _ in words)
            hints = tuple((position, hint) for position, (_, _, hint) in enumerate(words) if hint)
            result_type = result.replace("T", element)
            if result_type in TYPES and all(name in TYPES for name in types):
                call = template[0] not in "{N" or template.startswith("({})[")
                yield Form(template.replace("{}", "·"), result_type, types, template, not call, hints)


def _casts(session):
    """Every cast that PostgreSQL knows between types that are compared, by asking for it."""
    for source in TYPES:
        for target, kind in TYPES.items():
            if session.ask(f"SELECT (NULL::{TYPES[source].names[0]})::{kind.names[0]}").ok:
                for spelled in (kind.names[0], *_MODIFIED.get(target, ())):
                    yield Form(f"::{spelled}", target, (source,), f"{{}}::{spelled}", True)
                yield Form(f"CAST AS {kind.names[0]}", target, (source,), f"CAST({{}} AS {kind.names[0]})")


def _decoded(answer):
    assert answer.ok, answer
    return [[cell.decode() for cell in row] for row in answer.rows]


def _words(array):
    return [word.strip('"') for word in array[1:-1].split(",") if word]


def load(session):
    """(scalar forms, set-returning forms, aggregates), each sorted: the same in every run."""
    scalar, sets, aggregates = list(_special()), [], []
    for name, result, left, right in _decoded(session.ask(_OPERATORS)):
        if name in _NOT_OPERATORS:
            continue
        operands = [right] if left == "-" else [left, right]
        for result_type, *arguments in _expanded([result, *operands]):
            hints = ((1, _OPERATOR_HINTS[name]),) if name in _OPERATOR_HINTS and arguments[-1] in ("text", "text[]") else ()
            scalar.append(Form(name, result_type, tuple(arguments), f"{name} {{}}" if left == "-" else f"{{}} {name} {{}}", True, hints))
    for name, result, arguments, kind, many in _decoded(session.ask(_CATALOG)):
        if name not in NAMES:
            continue
        types = _words(arguments)
        if many == "true" and result == "record":
            result = "text"  # two columns; the type only says that it is a value
        for result_type, *concrete in _expanded([result, *types]):
            if name == "generate_series" and concrete[0] not in ("int4", "int8"):
                continue  # between any two moments lie too many
            form = Form(name, result_type, tuple(concrete), f"{name}({', '.join(['{}'] * len(concrete)) or '*' * (kind == 'a')})", False, _hints(name, concrete))
            (aggregates if kind == "a" else sets if many == "true" else scalar).append(form)
    scalar += _casts(session)
    sets.append(Form("generate_series", "timestamp", ("timestamp", "interval"), "generate_series({0}, {0} + interval '3 days', {1})", False, ((1, "step"),)))
    aggregates.append(Form("jsonb_object_agg", "jsonb", ("text", "jsonb"), "jsonb_object_agg({}, {})"))
    aggregates += [Form("count", "int8", (name,), "count({})") for name in TYPES]
    return [sorted(set(forms), key=lambda form: (form.name, form.arguments, form.template, form.result)) for forms in (scalar, sets, aggregates)]
