//! Messages with schemas, as Debezium and Kafka Connect's JsonConverter write them.

use super::random::Random;
use super::*;

/// Fields of a row as Debezium's connector for PostgreSQL describes them, and the values of one.
const POSTGRES: &[(&str, &str, &str)] = &[
    ("id", r#""type":"int32","optional":false"#, "1"),
    (
        "day",
        r#""type":"int32","optional":true,"name":"io.debezium.time.Date","version":1"#,
        "19782",
    ),
    (
        "time3",
        r#""type":"int32","optional":true,"name":"io.debezium.time.Time","version":1"#,
        "45296789",
    ),
    (
        "time6",
        r#""type":"int64","optional":true,"name":"io.debezium.time.MicroTime","version":1"#,
        "45296789123",
    ),
    (
        "ts3",
        r#""type":"int64","optional":true,"name":"io.debezium.time.Timestamp","version":1"#,
        "-1000",
    ),
    (
        "ts6",
        r#""type":"int64","optional":true,"name":"io.debezium.time.MicroTimestamp","version":1"#,
        "-1000",
    ),
    (
        "tsn",
        r#""type":"int64","optional":true,"name":"io.debezium.time.NanoTimestamp","version":1"#,
        "1709210096789123500",
    ),
    (
        "tz",
        r#""type":"string","optional":true,"name":"io.debezium.time.ZonedTimestamp","version":1"#,
        r#""2024-02-29T12:34:56.789123Z""#,
    ),
    (
        "price",
        r#""type":"bytes","optional":true,"name":"org.apache.kafka.connect.data.Decimal","version":1,"parameters":{"scale":"2","connect.decimal.precision":"10"}"#,
        r#""+y4=""#,
    ),
    (
        "large",
        r#""type":"bytes","optional":true,"name":"org.apache.kafka.connect.data.Decimal","version":1,"parameters":{"scale":"10","connect.decimal.precision":"60"}"#,
        r#""942AnJZVB8Ner9mLhQc4DmkxwPUu""#,
    ),
    (
        "free",
        r#""type":"struct","fields":[{"type":"int32","optional":false,"field":"scale"},{"type":"bytes","optional":false,"field":"value"}],"optional":true,"name":"io.debezium.data.VariableScaleDecimal","version":1,"doc":"Variable scaled decimal""#,
        r#"{"scale":3,"value":"AeJA"}"#,
    ),
    (
        "doc",
        r#""type":"string","optional":true,"name":"io.debezium.data.Json","version":1"#,
        r#""{\"b\": [1.50], \"a\": null}""#,
    ),
    (
        "u",
        r#""type":"string","optional":true,"name":"io.debezium.data.Uuid","version":1"#,
        r#""a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11""#,
    ),
    (
        "mood",
        r#""type":"string","optional":true,"name":"io.debezium.data.Enum","version":1,"parameters":{"allowed":"sad,ok,happy"}"#,
        r#""happy""#,
    ),
    ("raw", r#""type":"bytes","optional":true"#, r#""AP8=""#),
    (
        "bits",
        r#""type":"bytes","optional":true,"name":"io.debezium.data.Bits","version":1,"parameters":{"length":"10"}"#,
        r#""BQI=""#,
    ),
    (
        "tags",
        r#""type":"array","items":{"type":"string","optional":true},"optional":true"#,
        r#"["a",null,"b c"]"#,
    ),
    (
        "days",
        r#""type":"array","items":{"type":"int32","optional":true,"name":"io.debezium.time.Date","version":1},"optional":true"#,
        "[0,19782]",
    ),
    (
        "prices",
        r#""type":"array","items":{"type":"bytes","optional":true,"name":"org.apache.kafka.connect.data.Decimal","version":1,"parameters":{"scale":"2"}},"optional":true"#,
        r#"["BNI=",null]"#,
    ),
    (
        "span",
        r#""type":"int64","optional":true,"name":"io.debezium.time.MicroDuration","version":1"#,
        "90000000",
    ),
    (
        "iso",
        r#""type":"string","optional":true,"name":"io.debezium.time.Interval","version":1"#,
        r#""P1Y2M3DT4H5M6.78S""#,
    ),
    (
        "store",
        r#""type":"map","keys":{"type":"string","optional":false},"values":{"type":"string","optional":true},"optional":true"#,
        r#"{"k":"v","n":null}"#,
    ),
    (
        "place",
        r#""type":"struct","fields":[{"type":"double","optional":false,"field":"x"},{"type":"double","optional":false,"field":"y"},{"type":"bytes","optional":true,"field":"wkb"},{"type":"int32","optional":true,"field":"srid"}],"optional":true,"name":"io.debezium.data.geometry.Point","version":1"#,
        r#"{"x":1.5,"y":2.0,"wkb":"AQE=","srid":null}"#,
    ),
];

const POSTGRES_COLUMNS: &[(&str, &str)] = &[
    ("id", "int"),
    ("day", "date"),
    ("time3", "time"),
    ("time6", "time"),
    ("ts3", "timestamp"),
    ("ts6", "timestamp"),
    ("tsn", "timestamp"),
    ("tz", "timestamptz"),
    ("price", "numeric(10,2)"),
    ("large", "numeric"),
    ("free", "numeric"),
    ("doc", "jsonb"),
    ("u", "uuid"),
    ("mood", "varchar"),
    ("raw", "bytea"),
    ("bits", "varchar"),
    ("tags", "varchar[]"),
    ("days", "date[]"),
    ("prices", "numeric(10,2)[]"),
    ("span", "interval"),
    ("iso", "interval"),
    ("store", "jsonb"),
    ("place", "jsonb"),
];

const POSTGRES_ROW: [&str; 23] = [
    "1",
    "2024-02-29",
    "12:34:56.789",
    "12:34:56.789123",
    "1969-12-31T23:59:59",
    "1969-12-31T23:59:59.999",
    "2024-02-29T12:34:56.789124",
    "2024-02-29T12:34:56.789123Z",
    "-12.34",
    "-1234567890123456789012345678901234567890.1234567890",
    "123.456",
    r#"{"a": null, "b": [1.50]}"#,
    "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
    "happy",
    "\\x00\\xff",
    "1000000101",
    "{a,-,b c}",
    "{1970-01-01,2024-02-29}",
    "{12.34,-}",
    "1 mins 30.000000000 secs",
    "14 mons 3 days 4 hours 5 mins 6.780000000 secs",
    r#"{"k": "v", "n": null}"#,
    r#"{"x": 1.5, "y": 2.0, "wkb": "\\x0101", "srid": null}"#,
];

type Fields<'a> = &'a [(&'a str, &'a str, &'a str)];

fn schema_fields(fields: Fields<'_>) -> String {
    let field =
        |(name, schema, _): &(&str, &str, &str)| format!(r#"{{{schema},"field":"{name}"}}"#);
    fields.iter().map(field).collect::<Vec<_>>().join(",")
}

fn row(fields: Fields<'_>) -> String {
    let member = |(name, _, value): &(&str, &str, &str)| format!("\"{name}\":{value}");
    format!(
        "{{{}}}",
        fields.iter().map(member).collect::<Vec<_>>().join(",")
    )
}

/// A change event of table `t` with its schema, as Debezium 2 writes it.
fn event(fields: Fields<'_>, before: &str, after: &str, op: &str) -> String {
    let row = schema_fields(fields);
    let image = |name: &str| {
        format!(
            r#"{{"type":"struct","fields":[{row}],"optional":true,"name":"s.public.t.Value","field":"{name}"}}"#
        )
    };
    format!(
        r#"{{"schema":{{"type":"struct","fields":[{},{},{{"type":"struct","fields":[{{"type":"string","optional":false,"field":"version"}},{{"type":"string","optional":true,"name":"io.debezium.data.Enum","version":1,"parameters":{{"allowed":"true,last,false,incremental"}},"default":"false","field":"snapshot"}}],"optional":false,"name":"io.debezium.connector.postgresql.Source","field":"source"}},{{"type":"string","optional":false,"field":"op"}},{{"type":"int64","optional":true,"field":"ts_ms"}}],"optional":false,"name":"s.public.t.Envelope","version":1}},"payload":{{"before":{before},"after":{after},"source":{{"version":"2.5.0.Final","snapshot":"false"}},"op":"{op}","ts_ms":1709210096999,"transaction":null}}}}"#,
        image("before"),
        image("after"),
    )
}

fn key(fields: Fields<'_>) -> String {
    format!(
        r#"{{"schema":{{"type":"struct","fields":[{}],"optional":false,"name":"s.public.t.Key"}},"payload":{}}}"#,
        schema_fields(fields),
        row(fields)
    )
}

fn decoder(format: Format, columns: &[Column], key: &[usize]) -> RecordDecoder {
    RecordDecoder::new(&spec(format, Encode::Json, key), columns, &all(columns)).unwrap()
}

/// The rows and the problems of records.
fn run(
    mut decoder: RecordDecoder,
    records: &[(Option<&str>, Option<&str>)],
) -> (Vec<String>, Vec<String>) {
    for (key, value) in records {
        push(&mut decoder, *key, *value);
    }
    let (changes, errors) = decoder.finish();
    (table(&changes), problems(&errors))
}

#[test]
fn postgres_events() {
    let columns = columns(POSTGRES_COLUMNS);
    let decoder = decoder(Format::Debezium, &columns, &[0]);
    let image = row(POSTGRES);
    let nulls = r#"{"id":2,"day":null,"price":null,"free":null,"tags":null}"#;
    let events = [
        event(POSTGRES, "null", &image, "c"),
        event(POSTGRES, &image, nulls, "u"),
        event(POSTGRES, nulls, "null", "d"),
        event(POSTGRES, "null", "null", "d"),
    ];
    let key = key(&POSTGRES[..1]);
    let records: Vec<_> = events
        .iter()
        .map(|event| (Some(key.as_str()), Some(event.as_str())))
        .chain([(Some(key.as_str()), None)])
        .collect();
    let (rows, errors) = run(decoder, &records);
    assert_eq!(errors, Vec::<String>::new());
    let dashes = " | -".repeat(columns.len() - 1);
    let expected = [
        format!("+ {}", POSTGRES_ROW.join(" | ")),
        format!("+ 2{dashes}"),
        format!("- 2{dashes}"),
        format!("- 1{dashes}"),
    ];
    assert_eq!(rows, expected);
}

/// The same row without the event around it (`ExtractNewRecordState`), and the schema after it.
#[test]
fn rows_in_envelopes() {
    let columns = columns(POSTGRES_COLUMNS);
    let schema = format!(
        r#"{{"type":"struct","fields":[{}],"optional":false,"name":"s.public.t.Value"}}"#,
        schema_fields(POSTGRES)
    );
    let image = row(POSTGRES);
    let forward = format!(r#"{{"schema":{schema},"payload":{image}}}"#);
    let backward = format!("{{\n \"payload\" : {image},\n \"schema\" : {schema} }}");
    let (rows, errors) = run(
        decoder(Format::Plain, &columns, &[]),
        &[(None, Some(&forward)), (None, Some(&backward))],
    );
    assert_eq!(errors, Vec::<String>::new());
    let expected = format!("+ {}", POSTGRES_ROW.join(" | "));
    assert_eq!(rows, [expected.clone(), expected.clone()]);
    let key = key(&POSTGRES[..1]);
    let gone = format!(r#"{{"schema":{schema},"payload":null}}"#);
    let (rows, errors) = run(
        decoder(Format::Upsert, &columns, &[0]),
        &[
            (Some(&key), Some(&forward)),
            (Some(&key), Some(&gone)),
            (Some(&key), None),
        ],
    );
    assert_eq!(errors, Vec::<String>::new());
    let dashes = " | -".repeat(columns.len() - 1);
    assert_eq!(
        rows,
        [expected, format!("- 1{dashes}"), format!("- 1{dashes}")]
    );
}

/// Debezium's connector for MySQL, and Kafka Connect's own logical types.
#[test]
fn mysql_and_connect_types() {
    let fields: Fields<'_> = &[
        ("id", r#""type":"int64","optional":false"#, "7"),
        (
            "made",
            r#""type":"int64","optional":true,"name":"io.debezium.time.Timestamp","version":1"#,
            "1709210096000",
        ),
        (
            "clock",
            r#""type":"int64","optional":true,"name":"io.debezium.time.MicroTime","version":1"#,
            "45296000000",
        ),
        (
            "year",
            r#""type":"int32","optional":true,"name":"io.debezium.time.Year","version":1"#,
            "2024",
        ),
        (
            "kinds",
            r#""type":"string","optional":true,"name":"io.debezium.data.EnumSet","version":1,"parameters":{"allowed":"a,b,c"}"#,
            r#""a,c""#,
        ),
        ("flag", r#""type":"boolean","optional":true"#, "true"),
        (
            "mask",
            r#""type":"bytes","optional":true,"name":"io.debezium.data.Bits","version":1,"parameters":{"length":"10"}"#,
            r#""BQI=""#,
        ),
        (
            "guid",
            r#""type":"bytes","optional":true"#,
            r#""oO68mZwLTvi7bWu5vTgKEQ==""#,
        ),
        (
            "cday",
            r#""type":"int32","optional":true,"name":"org.apache.kafka.connect.data.Date","version":1"#,
            "-1",
        ),
        (
            "ctime",
            r#""type":"int32","optional":true,"name":"org.apache.kafka.connect.data.Time","version":1"#,
            "45296789",
        ),
        (
            "cts",
            r#""type":"int64","optional":true,"name":"org.apache.kafka.connect.data.Timestamp","version":1"#,
            "1709210096789",
        ),
        (
            "numbers",
            r#""type":"map","keys":{"type":"int32","optional":false},"values":{"type":"int32","optional":true,"name":"io.debezium.time.Date"},"optional":true"#,
            "[[1,0],[2,null]]",
        ),
        (
            "nested",
            r#""type":"struct","fields":[{"type":"int64","optional":true,"name":"io.debezium.time.MicroTimestamp","field":"at"},{"type":"bytes","optional":true,"name":"org.apache.kafka.connect.data.Decimal","parameters":{"scale":"2"},"field":"sum"},{"type":"array","items":{"type":"int64","name":"io.debezium.time.MicroDuration"},"optional":true,"field":"spans"},{"type":"string","optional":true,"name":"io.debezium.data.Json","field":"doc"}],"optional":true"#,
            r#"{"at":1709210096789123,"sum":"BNI=","spans":[90000000],"doc":"{\"a\":1}"}"#,
        ),
    ];
    let columns = columns(&[
        ("id", "bigint"),
        ("made", "timestamp"),
        ("clock", "time"),
        ("year", "int"),
        ("kinds", "varchar"),
        ("flag", "boolean"),
        ("mask", "int"),
        ("guid", "uuid"),
        ("cday", "date"),
        ("ctime", "time"),
        ("cts", "timestamptz"),
        ("numbers", "jsonb"),
        ("nested", "jsonb"),
    ]);
    let event = event(fields, "null", &row(fields), "r");
    let (rows, errors) = run(
        decoder(Format::Debezium, &columns, &[0]),
        &[(None, Some(&event))],
    );
    assert_eq!(errors, Vec::<String>::new());
    assert_eq!(
        rows,
        [[
            "+ 7",
            "2024-02-29T12:34:56",
            "12:34:56",
            "2024",
            "a,c",
            "true",
            "517",
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            "1969-12-31",
            "12:34:56.789",
            "2024-02-29T12:34:56.789Z",
            r#"[[1, "1970-01-01"], [2, null]]"#,
            r#"{"at": "2024-02-29T12:34:56.789123", "doc": {"a": 1}, "sum": 12.34, "spans": ["00:01:30"]}"#,
        ]
        .join(" | ")]
    );
}

/// What one field with this schema and value becomes in a column of type `sql`.
fn field(sql: &str, schema: &str, value: &str) -> String {
    let record = format!(
        r#"{{"schema":{{"type":"struct","fields":[{{{schema},"field":"v"}}],"optional":false}},"payload":{{"v":{value}}}}}"#
    );
    let (mut rows, mut errors) = run(
        decoder(Format::Plain, &columns(&[("v", sql)]), &[]),
        &[(None, Some(&record))],
    );
    match errors.pop() {
        Some(error) => format!("! {error}"),
        None => rows.pop().unwrap().split_off(2),
    }
}

#[test]
fn forms_and_column_types() {
    let date = r#""type":"int32","name":"io.debezium.time.Date""#;
    let micros = r#""type":"int64","name":"io.debezium.time.MicroTimestamp""#;
    let time = r#""type":"int64","name":"io.debezium.time.MicroTime""#;
    let zoned = r#""type":"string","name":"io.debezium.time.ZonedTimestamp""#;
    let millis = r#""type":"int64","name":"io.debezium.time.Timestamp""#;
    let year = r#""type":"int32","name":"io.debezium.time.Year""#;
    let decimal = r#""type":"bytes","name":"org.apache.kafka.connect.data.Decimal","parameters":{"scale":"2"}"#;
    let bits = r#""type":"bytes","name":"io.debezium.data.Bits","parameters":{"length":"3"}"#;
    let bytes = r#""type":"bytes""#;
    let json = r#""type":"string","name":"io.debezium.data.Json""#;
    let string = r#""type":"string""#;
    for (sql, schema, value, expected) in [
        ("timestamp", date, "19782", "2024-02-29T00:00:00"),
        ("varchar", date, "19782", "2024-02-29"),
        ("int", date, "19782", "19782"),
        ("jsonb", date, "19782", "\"2024-02-29\""),
        (
            "time",
            date,
            "1",
            "! v: invalid input syntax for type time: \"1\"",
        ),
        ("date", micros, "-1", "1969-12-31"),
        ("time", micros, "-1", "23:59:59.999999"),
        ("timestamptz", micros, "0", "1970-01-01T00:00:00Z"),
        ("varchar", micros, "1500000", "1970-01-01 00:00:01.5"),
        ("bigint", micros, "1500000", "1500000"),
        ("varchar", micros, "9223372036825200000", "infinity"),
        ("varchar", micros, "-9223372036832400000", "-infinity"),
        ("varchar", millis, "9223372036825200", "infinity"),
        ("varchar", millis, "-9223372036832400", "-infinity"),
        (
            "timestamp",
            micros,
            "-9223372036832400001",
            "! v: value \"-9223372036832400001\" is out of range for type timestamp",
        ),
        ("interval", time, "90000000", "1 mins 30.000000000 secs"),
        (
            "timestamp",
            time,
            "0",
            "! v: invalid input syntax for type timestamp: \"0\"",
        ),
        (
            "varchar",
            zoned,
            "\"2024-02-29T12:00:00Z\"",
            "2024-02-29T12:00:00Z",
        ),
        (
            "timestamptz",
            zoned,
            "\"+12345-01-01T00:00:00Z\"",
            "+12345-01-01T00:00:00Z",
        ),
        ("int", year, "2024", "2024"),
        (
            "date",
            year,
            "2024",
            "! v: invalid input syntax for type date: \"2024\"",
        ),
        ("numeric", decimal, "\"BNI=\"", "12.34"),
        (
            "numeric",
            decimal,
            "\"CHJ/Y2mq+DyhUCZ0evjH8ZbOPwrS\"",
            "123456789012345678901234567890123456789012345678.90",
        ),
        ("numeric(38,10)", decimal, "\"BNI=\"", "12.3400000000"),
        ("double", decimal, "\"BNI=\"", "12.34"),
        ("varchar", decimal, "\"AJY=\"", "1.50"),
        ("jsonb", decimal, "\"AJY=\"", "1.50"),
        (
            "int",
            decimal,
            "\"BNI=\"",
            "! v: invalid input syntax for type integer: \"12.34\"",
        ),
        ("numeric", decimal, "12.34", "12.34"),
        (
            "numeric",
            decimal,
            "\"12.34\"",
            "! v: invalid input syntax for type base64: \"12.34\"",
        ),
        (
            "numeric",
            decimal,
            "\"\"",
            "! v: a decimal in base64 has no bytes, or a scale beyond all numerics",
        ),
        ("bytea", bits, "\"BQ==\"", "\\x05"),
        ("varchar", bits, "\"BQ==\"", "101"),
        ("smallint", bits, "\"BQ==\"", "5"),
        ("varchar", bytes, "\"AP8=\"", "\\x00ff"),
        (
            "int",
            bytes,
            "\"AP8=\"",
            "! v: invalid input syntax for type integer: \"AP8=\"",
        ),
        (
            "bytea",
            bytes,
            "\"A\"",
            "! v: invalid input syntax for type base64: \"A\"",
        ),
        ("jsonb", json, r#""{\"a\": 1}""#, r#"{"a": 1}"#),
        ("varchar", json, r#""{\"a\": 1}""#, r#"{"a": 1}"#),
        ("int[]", json, r#""[1, 2]""#, "{1,2}"),
        (
            "int[]",
            json,
            r#""[1, ""#,
            "! v: invalid input syntax for type json: \"[1, \"",
        ),
        // A string is a string, be it JSON or digits.
        ("jsonb", string, r#""{\"a\": 1}""#, r#""{\"a\": 1}""#),
        ("numeric", string, "\"1234\"", "1234"),
        ("bytea", string, "\"abcd\"", "abcd"),
    ] {
        let actual = field(sql, schema, value);
        assert_eq!(actual, expected, "{sql} from {value} of {schema}");
    }
}

/// Errors name the column, and the field inside it.
#[test]
fn faults_inside_structs_name_the_field() {
    let schema = r#""type":"struct","fields":[{"type":"struct","fields":[{"type":"int32","name":"io.debezium.time.Date","field":"day"}],"field":"inner"}]"#;
    assert_eq!(
        field("jsonb", schema, r#"{"inner":{"day":999999999}}"#),
        "! v: field \"inner\": field \"day\": value \"999999999\" is out of range for type date"
    );
}

/// A topic whose schema changes, and one that is read again with an older one.
#[test]
fn schemas_alternate() {
    let millis = r#""type":"int64","name":"io.debezium.time.Timestamp""#;
    let micros = r#""type":"int64","name":"io.debezium.time.MicroTimestamp""#;
    let columns = columns(&[("id", "int"), ("at", "timestamp"), ("more", "varchar")]);
    let mut decoder = decoder(Format::Debezium, &columns, &[0]);
    let id = ("id", r#""type":"int32","optional":false"#, "1");
    for _ in 0..3 {
        for fields in [
            &[id, ("at", millis, "1000")][..],
            &[id, ("at", micros, "1000")],
            &[
                ("at", micros, "2000"),
                ("more", r#""type":"string""#, "\"m\""),
                id,
            ],
        ] {
            push(
                &mut decoder,
                None,
                Some(&event(fields, "null", &row(fields), "c")),
            );
        }
        push(
            &mut decoder,
            None,
            Some(r#"{"after":{"id":1,"at":1000},"op":"c"}"#),
        );
    }
    let (changes, errors) = decoder.finish();
    assert_eq!(problems(&errors), Vec::<String>::new());
    let round = [
        "+ 1 | 1970-01-01T00:00:01 | -",
        "+ 1 | 1970-01-01T00:00:00.001 | -",
        "+ 1 | 1970-01-01T00:00:00.002 | m",
        "+ 1 | 1970-01-01T00:00:01 | -",
    ];
    assert_eq!(table(&changes), [round, round, round].concat());
}

/// More schemas than are kept: each still decides its own records.
#[test]
fn many_schemas() {
    let columns = columns(&[("id", "int"), ("at", "timestamp")]);
    let mut decoder = decoder(Format::Plain, &columns, &[]);
    for n in 0..200 {
        let unit = if n % 2 == 0 {
            "Timestamp"
        } else {
            "MicroTimestamp"
        };
        let record = format!(
            r#"{{"schema":{{"type":"struct","version":{n},"fields":[{{"type":"int64","name":"io.debezium.time.{unit}","field":"at"}}]}},"payload":{{"id":{n},"at":{}}}}}"#,
            if n % 2 == 0 { 1 } else { 1000 }
        );
        push(&mut decoder, None, Some(&record));
    }
    let (changes, errors) = decoder.finish();
    assert_eq!(problems(&errors), Vec::<String>::new());
    let rows = table(&changes);
    assert_eq!(rows.len(), 200);
    assert!(
        rows.iter()
            .all(|row| row.ends_with("1970-01-01T00:00:00.001"))
    );
}

#[test]
fn names_that_differ_by_case() {
    let day = r#""type":"int32","name":"io.debezium.time.Date""#;
    let plain = r#""type":"int32""#;
    let columns = columns(&[("id", "int"), ("day", "varchar"), ("n", "int")]);
    let fields: Fields<'_> = &[
        ("ID", plain, "1"),
        ("Day", day, "0"),
        ("N", plain, "5"),
        ("n", plain, "6"),
    ];
    let key: Fields<'_> = &[("Id", plain, "1")];
    let (created, deleted) = (
        event(fields, "null", &row(fields), "c"),
        event(fields, "null", "null", "d"),
    );
    let key = self::key(key);
    let (rows, errors) = run(
        decoder(Format::Debezium, &columns, &[0]),
        &[(Some(&key), Some(&created)), (Some(&key), Some(&deleted))],
    );
    assert_eq!(errors, Vec::<String>::new());
    assert_eq!(rows, ["+ 1 | 1970-01-01 | 6", "- 1 | - | -"]);
}

#[test]
fn keys_with_schemas() {
    let columns = columns(&[("day", "date"), ("n", "int")]);
    let date = r#""type":"int32","optional":false,"name":"io.debezium.time.Date","version":1"#;
    let decimal = r#""type":"bytes","optional":false,"name":"org.apache.kafka.connect.data.Decimal","parameters":{"scale":"2"}"#;
    let wrapped = key(&[("day", date, "19782")]);
    let bare = format!(r#"{{"schema":{{{date}}},"payload":19782}}"#);
    let (rows, errors) = run(
        decoder(Format::Upsert, &columns, &[0]),
        &[
            (Some(&wrapped), Some("{\"n\":1}")),
            (Some(&bare), Some("{\"n\":2}")),
            (Some("{\"day\":19782}"), None),
            (Some("19782"), None),
        ],
    );
    assert_eq!(errors, Vec::<String>::new());
    assert_eq!(
        rows,
        [
            "+ 2024-02-29 | 1",
            "+ 2024-02-29 | 2",
            "- 2024-02-29 | -",
            "- 2024-02-29 | -"
        ]
    );
    let prices = super::columns(&[("price", "numeric(10,2)"), ("n", "int")]);
    let wrapped = key(&[("price", decimal, "\"BNI=\"")]);
    let bare = format!(r#"{{"schema":{{{decimal}}},"payload":"BNI="}}"#);
    let (rows, errors) = run(
        decoder(Format::Upsert, &prices, &[0]),
        &[(Some(&wrapped), Some("{\"n\":1}")), (Some(&bare), None)],
    );
    assert_eq!(errors, Vec::<String>::new());
    assert_eq!(rows, ["+ 12.34 | 1", "- 12.34 | -"]);
}

/// Only these two members make an envelope, and not where they are what is asked for.
#[test]
fn what_is_no_envelope() {
    let wide = columns(&[("schema", "varchar"), ("payload", "jsonb"), ("n", "int")]);
    let (rows, errors) = run(
        decoder(Format::Plain, &wide, &[]),
        &[
            (None, Some(r#"{"schema":"s","payload":{"n":1}}"#)),
            (
                None,
                Some(r#"{"schema":{"type":"struct"},"payload":{"n":2},"n":3}"#),
            ),
            (
                None,
                Some(r#"{"schema":{"type":"struct"},"payload":{"n":4}}"#),
            ),
            (None, Some(r#"{"schema":null,"payload":{"n":5}}"#)),
            (None, Some(r#"{"schema":{"type":"struct"},"payload":null}"#)),
            (None, Some(r#"{"schema":{"type":"struct"},"payload":[1]}"#)),
            (
                None,
                Some(r#"{"schema":{"type":"struct"},"payload":{"n":6}"#),
            ),
        ],
    );
    assert_eq!(
        rows,
        [
            r#"+ s | {"n": 1} | -"#,
            r#"+ {"type":"struct"} | {"n": 2} | 3"#,
            "+ - | - | 4",
            "+ - | - | 5",
        ]
    );
    assert_eq!(
        errors,
        [
            ": the record has no value",
            ": malformed JSON at byte 38: object expected",
            ": malformed JSON at byte 45: comma or closing brace expected, but the text ends",
        ]
    );
    let own = columns(&[("payload", "jsonb")]);
    let record = r#"{"schema":{"type":"struct"},"payload":{"n":4}}"#;
    let (rows, _) = run(decoder(Format::Plain, &own, &[]), &[(None, Some(record))]);
    assert_eq!(rows, [r#"+ {"n": 4}"#]);
}

/// Schemas that say nothing, or nonsense, leave values to be read without one.
#[test]
fn strange_schemas() {
    for schema in [
        "{}",
        r#"{"type":7,"fields":"x"}"#,
        r#"{"type":"struct","fields":[{"field":7},{"type":"int64","name":"my.own.Type","field":"v"}]}"#,
        r#"{"type":"string"}"#,
    ] {
        let record = format!(r#"{{"schema":{schema},"payload":{{"v":1000}}}}"#);
        let (rows, errors) = run(
            decoder(Format::Plain, &columns(&[("v", "timestamp")]), &[]),
            &[(None, Some(&record)), (None, Some(&record))],
        );
        assert_eq!(errors, Vec::<String>::new());
        assert_eq!(rows, ["+ 1970-01-01T00:00:01"; 2], "{schema}");
    }
}

/// Events with a byte changed, in the schema or after it: every one is a row or an error, and those
/// after it are not touched.
#[test]
fn mutilated_events_leave_the_others_alone() {
    let columns = columns(POSTGRES_COLUMNS);
    let mut decoder = decoder(Format::Debezium, &columns, &[0]);
    let whole = event(POSTGRES, "null", &row(POSTGRES), "c");
    let mut random = Random::new(5);
    for round in 0..2_000 {
        let mut broken = whole.clone().into_bytes();
        let at = match round % 2 {
            0 => random.below(broken.len() as u64) as usize,
            _ => {
                let payload = whole.find("payload").unwrap();
                payload + random.below((whole.len() - payload) as u64) as usize
            }
        };
        broken[at] = *random.of(b"\"{}[]:,0129-+.eEAz=\\n \x00\xff");
        let offset = decoder.len() as i64;
        decoder.push(&RawRecord {
            value: Some(&broken),
            offset,
            ..RawRecord::default()
        });
        push(&mut decoder, None, Some(&whole));
        let (changes, errors) = decoder.finish();
        assert!(changes.num_rows() + errors.len() <= 2, "round {round}");
        let rows = table(&changes);
        let expected = format!("+ {}", POSTGRES_ROW.join(" | "));
        assert_eq!(rows.last(), Some(&expected), "round {round}");
    }
}
