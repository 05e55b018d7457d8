"""TPC-H's tables, small and with NUMERIC columns without precision, and what changes them: each value has a scale of its own, so that products, sums and quotients have
PostgreSQL's digits or differ. The queries are in tpch.sql."""

import datetime
import random
from pathlib import Path

PARTS, SUPPLIERS, CUSTOMERS, ORDERS = 60, 15, 60, 400
TABLES = {
    "region": "r_regionkey int PRIMARY KEY, r_name text",
    "nation": "n_nationkey int PRIMARY KEY, n_name text, n_regionkey int",
    "part": "p_partkey int PRIMARY KEY, p_type text, p_brand text, p_size int, p_container text, p_name text",
    "supplier": "s_suppkey int PRIMARY KEY, s_name text, s_nationkey int, s_acctbal numeric",
    "partsupp": "ps_partkey int, ps_suppkey int, ps_availqty int, ps_supplycost numeric, PRIMARY KEY (ps_partkey, ps_suppkey)",
    "customer": "c_custkey int PRIMARY KEY, c_name text, c_nationkey int, c_acctbal numeric, c_mktsegment text, c_phone text",
    "orders": "o_orderkey int PRIMARY KEY, o_custkey int, o_orderstatus char(1), o_totalprice numeric, o_orderdate date, o_orderpriority text, o_shippriority int, o_comment text",
    "lineitem": "l_orderkey int, l_linenumber int, l_partkey int, l_suppkey int, l_quantity numeric, l_extendedprice numeric, l_discount numeric, l_tax numeric, "
                "l_returnflag char(1), l_linestatus char(1), l_shipdate date, l_commitdate date, l_receiptdate date, l_shipmode text, l_shipinstruct text, "
                "PRIMARY KEY (l_orderkey, l_linenumber)",
}
REGIONS = ["AFRICA", "AMERICA", "ASIA", "EUROPE", "MIDDLE EAST"]
NATIONS = [("ALGERIA", 0), ("ARGENTINA", 1), ("BRAZIL", 1), ("CANADA", 1), ("EGYPT", 4), ("ETHIOPIA", 0), ("FRANCE", 3), ("GERMANY", 3), ("INDIA", 2), ("INDONESIA", 2),
           ("IRAN", 4), ("IRAQ", 4), ("JAPAN", 2), ("JORDAN", 4), ("KENYA", 0), ("MOROCCO", 0), ("MOZAMBIQUE", 0), ("PERU", 1), ("CHINA", 2), ("ROMANIA", 3),
           ("SAUDI ARABIA", 4), ("VIETNAM", 2), ("RUSSIA", 3), ("UNITED KINGDOM", 3), ("UNITED STATES", 1)]
KINDS = (["STANDARD", "SMALL", "MEDIUM", "LARGE", "ECONOMY", "PROMO"], ["ANODIZED", "BURNISHED", "PLATED", "POLISHED", "BRUSHED"], ["TIN", "NICKEL", "BRASS", "STEEL", "COPPER"])


def queries():
    """The queries, first to last."""
    text = (Path(__file__).parent / "tpch.sql").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("--")]
    return [query.strip().replace("\n", " ") for query in "\n".join(lines).split(";") if query.strip()]


def statements(seed):
    """The statements that make the tables and fill them."""
    dice = random.Random(seed)
    rows = {
        "region": [(i, name) for i, name in enumerate(REGIONS)],
        "nation": [(i, name, region) for i, (name, region) in enumerate(NATIONS)],
        "part": [(i, " ".join(map(dice.choice, KINDS)), f"Brand#{dice.randint(1, 5)}{dice.randint(1, 5)}", dice.randint(1, 50),
                  f"{dice.choice(['SM', 'LG', 'MED', 'JUMBO'])} {dice.choice(['CASE', 'BOX', 'BAG', 'PKG'])}",
                  f"{dice.choice(['green', 'forest', 'red', 'blue'])} {dice.choice(['lace', 'mint'])}") for i in range(1, PARTS + 1)],
        "supplier": [(i, f"S{i}", dice.randint(0, 24), _money(dice, -900, 9000)) for i in range(1, SUPPLIERS + 1)],
        "partsupp": [(part, supplier, dice.randint(1, 9999), _money(dice, 1, 1000))
                     for part in range(1, PARTS + 1) for supplier in dice.sample(range(1, SUPPLIERS + 1), 3)],
        "customer": [(i, f"C{i}", dice.randint(0, 24), _money(dice, -900, 9000), dice.choice(["AUTOMOBILE", "BUILDING", "FURNITURE"]), f"{dice.randint(10, 34)}-555")
                     for i in range(1, CUSTOMERS + 1)],
        "orders": [], "lineitem": [],
    }
    for order in range(1, ORDERS + 1):
        day = datetime.date(1993, 1, 1) + datetime.timedelta(days=dice.randint(0, 1800))
        rows["orders"].append((order, dice.randint(1, CUSTOMERS), dice.choice("OFP"), _money(dice, 800, 50000), day, dice.choice(["1-URGENT", "2-HIGH", "3-MEDIUM", "5-LOW"]), 0,
                               dice.choice(["x special requests", "none", "y"])))
        for line in range(1, dice.randint(2, 6)):
            shipped, committed = (day + datetime.timedelta(days=dice.randint(*days)) for days in ((1, 120), (30, 90)))
            received = shipped + datetime.timedelta(days=dice.randint(1, 30))
            rows["lineitem"].append((order, line, dice.randint(1, PARTS), dice.randint(1, SUPPLIERS), _Number(dice.randint(1, 50)), _money(dice, 900, 99999),
                                     _Number(f"0.0{dice.randint(0, 9)}"), _Number(f"0.0{dice.randint(0, 8)}"), dice.choice("RAN"), dice.choice("OF"), shipped, committed, received,
                                     dice.choice(["AIR", "AIR REG", "MAIL", "SHIP", "TRUCK"]), dice.choice(["DELIVER IN PERSON", "NONE"])))
    for table, columns in TABLES.items():
        yield f"CREATE TABLE {table} ({columns})"
    for table, values in rows.items():
        for start in range(0, len(values), 500):
            yield f"INSERT INTO {table} VALUES " + ", ".join(f"({', '.join(map(_literal, row))})" for row in values[start:start + 500])


def changes(number):
    """The statements of one round of changes: rows go, numbers get other scales, keys and dates move."""
    return [f"DELETE FROM lineitem WHERE l_orderkey % 7 = {number}",
            f"UPDATE lineitem SET l_discount = l_discount + 0.001, l_partkey = 1 + (l_partkey * 7) % {PARTS} WHERE l_linenumber = {number + 1}",
            f"UPDATE orders SET o_orderdate = o_orderdate + {number * 13} WHERE o_orderkey % 3 = {number % 3}",
            f"DELETE FROM orders WHERE o_orderkey % 11 = {number}",
            f"UPDATE part SET p_type = 'PROMO BRUSHED STEEL' WHERE p_partkey % 9 = {number}",
            f"UPDATE supplier SET s_nationkey = {number + 6} WHERE s_suppkey = {number + 1}"]


class _Number(str):
    """A numeric as it is written."""

    def __new__(cls, value):
        return super().__new__(cls, value)


def _money(dice, low, high):
    return _Number(f"{dice.randint(low * 100, high * 100) / 100:.2f}")


def _literal(value):
    return str(value) if isinstance(value, (int, _Number)) else f"'{value}'"
