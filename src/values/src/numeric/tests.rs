//! Laws that hold for all numerics, tried on random ones: the bytes' order is the numbers' order,
//! every form reads back as what was written, arithmetic's identities, and sums from which rows are
//! taken away against sums made anew. Answers are compared with PostgreSQL's in `tests/`.

use std::cmp::Ordering;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use super::{Numeric, Sum, compare, key_of};
use tidemark_common::random::Random;

/// Values of a seed.
struct Values(Random);

impl Values {
    fn digits(&mut self, n: u64) -> String {
        let style = self.0.below_u64(8);
        (0..n)
            .map(|_| match style {
                0 => '0',
                1 => '9',
                2 if self.0.below_u64(4) > 0 => '0',
                _ => char::from(b'0' + self.0.below_u64(10) as u8),
            })
            .collect()
    }

    fn length(&mut self) -> u64 {
        match self.0.below_u64(10) {
            0..6 => self.0.below_u64(7),
            6..9 => self.0.below_u64(22),
            _ => self.0.below_u64(90),
        }
    }

    fn finite(&mut self) -> Numeric {
        let (whole, fraction) = (self.length(), self.length());
        let sign = if self.0.below_u64(3) == 0 { "-" } else { "" };
        let text = match self.0.below_u64(30) {
            0 => format!("{sign}{}1e{}", self.digits(whole), self.0.below_u64(400)),
            1 => format!("{sign}{}1e-{}", self.digits(whole), self.0.below_u64(400)),
            _ => format!("{sign}0{}.{}", self.digits(whole), self.digits(fraction)),
        };
        number(&text)
    }

    fn any(&mut self) -> Numeric {
        match self.0.below_u64(40) {
            0 => Numeric::NAN,
            1 => Numeric::INFINITY,
            2 => Numeric::NEG_INFINITY,
            3 => number("9e1500"),
            4 => number("-9e1500"),
            5 => number("1e-700"),
            6 => number("0.00"),
            7 => Numeric::from(i128::MIN),
            8 => Numeric::from(i128::MAX),
            _ => self.finite(),
        }
    }
}

fn number(text: &str) -> Numeric {
    match Numeric::parse(text) {
        Ok(v) => v,
        Err(e) => panic!("{text:?}: {e}"),
    }
}

fn bytes(v: &Numeric) -> Vec<u8> {
    let mut out = Vec::new();
    v.encode(&mut out);
    out
}

fn hash(v: &Numeric) -> u64 {
    let mut hasher = DefaultHasher::new();
    v.hash(&mut hasher);
    hasher.finish()
}

#[test]
fn bytes_sort_as_numbers() {
    let mut random = Values(Random(0x1234_5678_9abc_def1));
    let mut values: Vec<Numeric> = (0..200).map(|_| random.any()).collect();
    // Neighbours: equal numbers of other scales, and numbers that begin alike.
    for at in 0..100 {
        let v = values[at].clone();
        if let Some(scale) = v.scale() {
            values.push(
                v.round(i32::from(scale) + 1 + random.0.below_u64(5) as i32)
                    .unwrap(),
            );
            values.push(v.add(&number("0.01")).unwrap());
            values.push(v.trunc(0).unwrap());
        }
    }
    let forms: Vec<Vec<u8>> = values.iter().map(bytes).collect();
    for (a, x) in values.iter().zip(&forms) {
        for (b, y) in values.iter().zip(&forms) {
            let order = a.cmp(b);
            assert_eq!(order, key_of(x).cmp(key_of(y)), "keys of {a} and {b}");
            assert_eq!(order, compare(x, y), "{a} and {b}");
            if order == Ordering::Equal {
                assert_eq!(hash(a), hash(b), "{a} and {b}");
            } else {
                assert_eq!(order, x.cmp(y), "whole forms of {a} and {b}");
                assert!(!key_of(x).starts_with(key_of(y)), "{b}'s key begins {a}'s");
            }
        }
    }
}

#[test]
fn forms_read_back() {
    let mut random = Values(Random(0xfeed_beef_dead_cafe));
    for _ in 0..1500 {
        let v = random.any();
        let text = v.to_string();
        assert_eq!(number(&text).to_string(), text);
        assert_eq!(Numeric::decode(&bytes(&v)).unwrap().to_string(), text);
        let mut wire = Vec::new();
        v.write_wire(&mut wire);
        assert_eq!(Numeric::read_wire(&wire).unwrap().to_string(), text);
        if let Some((unscaled, scale)) = v.to_bigint() {
            let again = Numeric::from_bigint(unscaled, i32::from(scale)).unwrap();
            assert_eq!(again.to_string(), text);
        }
    }
}

#[test]
fn limits_are_postgresqls() {
    for text in ["1e131071", "-9.5e131071", "1e-16383"] {
        let v = number(text);
        assert_eq!(Numeric::decode(&bytes(&v)).unwrap(), v);
    }
    for text in ["1e131072", "1e-16384", "10e131071", "1e2147483647"] {
        assert_eq!(
            Numeric::parse(text).map_err(|e| e.state().0),
            Err("22003"),
            "{text}"
        );
    }
    let large = number("9e131071");
    assert_eq!(large.add(&large).map_err(|e| e.state().0), Err("22003"));
    assert!(large.add(&large.negated()).unwrap().is_zero());
}

#[test]
fn encoded_price_is_short() {
    assert_eq!(bytes(&number("12345.67")), [0x95, 3, 47, 91, 134, 2]);
    assert_eq!(bytes(&number("-12345.67")), [!0x95, !3, !47, !91, !134, 2]);
    assert_eq!(bytes(&number("0.00")), [0x80, 2]);
    assert_eq!(
        key_of(&bytes(&number("5e-200"))),
        key_of(&bytes(&number("5.000e-200")))
    );
}

#[test]
fn damaged_bytes_are_errors_or_values_but_never_a_panic() {
    let mut random = Values(Random(0x0dd_ba11));
    for _ in 0..3_000 {
        let mut form = match random.0.below_u64(4) {
            0 => (0..random.0.below_u64(12))
                .map(|_| random.0.next_u64() as u8)
                .collect(),
            1 => bytes(&random.any()),
            2 => {
                let mut wire = Vec::new();
                random.finite().write_wire(&mut wire);
                wire
            }
            _ => {
                let mut sum = Sum::with_squares();
                sum.add(&random.finite());
                sum.add(&random.finite());
                let mut state = Vec::new();
                sum.encode(&mut state);
                state
            }
        };
        if !form.is_empty() && form.len() < 1000 {
            let at = random.0.below_u64(form.len() as u64) as usize;
            form[at] = random.0.next_u64() as u8;
            if random.0.below_u64(3) == 0 {
                form.truncate(at);
            }
        }
        if form.len() < 1000 {
            let _ = key_of(&form);
            let _ = Numeric::decode(&form);
            let _ = Numeric::read_wire(&form);
            let _ = Sum::decode(&form).map(|sum| (sum.rows(), sum.is_empty()));
        }
    }
}

#[test]
fn arithmetic_keeps_its_laws() {
    let mut random = Values(Random(0xabcd_ef01_2345_6789));
    for _ in 0..1000 {
        let (a, b, c) = (random.finite(), random.finite(), random.finite());
        let sum = a.add(&b).unwrap();
        assert_eq!(sum.to_string(), b.add(&a).unwrap().to_string());
        assert_eq!(sum.sub(&b).unwrap(), a, "({a} + {b}) - {b}");
        let product = a.mul(&b).unwrap();
        assert_eq!(product.to_string(), b.mul(&a).unwrap().to_string());
        let left = sum.mul(&c).unwrap();
        let right = a.mul(&c).unwrap().add(&b.mul(&c).unwrap()).unwrap();
        assert_eq!(left, right, "({a} + {b}) * {c}");
        if !b.is_zero() {
            let (quotient, rest) = (a.div_trunc(&b).unwrap(), a.modulo(&b).unwrap());
            assert_eq!(
                quotient.mul(&b).unwrap().add(&rest).unwrap(),
                a,
                "{a} / {b}"
            );
            assert!(rest.abs() < b.abs());
            let back = a
                .div(&b)
                .unwrap()
                .sub(&product.div(&b.mul(&b).unwrap()).unwrap());
            assert!(back.unwrap().abs() < number("1e-6").add(&a.abs()).unwrap());
        }
        assert_eq!(a.negated().negated().to_string(), a.to_string());
        assert!(a.floor().unwrap() <= a && a <= a.ceil().unwrap());
        let size = a.abs();
        let (low, unit) = (size.sqrt().unwrap(), Numeric::ONE);
        let error = low.mul(&low).unwrap().sub(&size).unwrap().abs();
        assert!(error <= low.add(&unit).unwrap(), "sqrt {size}");
        assert_eq!(a.trim_scale(), a);
    }
}

#[test]
fn a_sum_forgets_what_is_removed() {
    let mut random = Values(Random(0x5eed_5eed_5eed));
    for round in 0..20 {
        let mut kept: Vec<Numeric> = Vec::new();
        let mut sums = [Sum::with_squares(), Sum::with_squares()];
        for step in 0..60 {
            let into = random.0.below_u64(2) as usize;
            if random.0.below_u64(5) < 2 && !kept.is_empty() {
                let gone = kept.swap_remove(random.0.below_u64(kept.len() as u64) as usize);
                sums[into].remove(&gone);
            } else {
                let v = if random.0.below_u64(30) == 0 {
                    random.any()
                } else {
                    random.finite()
                };
                sums[into].add(&v);
                kept.push(v);
            }
            if step % 7 == 0 {
                let mut state = Vec::new();
                sums[into].encode(&mut state);
                assert_eq!(Sum::decode(&state).unwrap(), sums[into]);
                let mut merged = sums[0].clone();
                merged.merge(&sums[1]);
                assert_same(&merged, &kept, round);
            }
        }
        // Everything goes: the state is as new.
        let mut merged = sums[0].clone();
        merged.merge(&sums[1]);
        for v in &kept {
            merged.remove(v);
        }
        assert!(merged.is_empty());
        assert_eq!(merged, Sum::with_squares());
    }
}

fn assert_same(sum: &Sum, rows: &[Numeric], round: usize) {
    let mut fresh = Sum::with_squares();
    for v in rows {
        fresh.add(v);
    }
    assert_eq!(*sum, fresh, "round {round}");
    let shown = |v: tidemark_common::Result<Option<Numeric>>| v.map(|v| v.map(|v| v.to_string()));
    let results = |s: &Sum| {
        [
            s.sum(),
            s.avg(),
            s.var_pop(),
            s.var_samp(),
            s.stddev_pop(),
            s.stddev_samp(),
        ]
        .map(|v| format!("{:?}", shown(v).map_err(|e| e.to_string())))
    };
    assert_eq!(results(sum), results(&fresh), "round {round}");
    if rows.iter().all(Numeric::is_finite) && !rows.is_empty() {
        let mut total = Numeric::ZERO;
        for v in rows {
            total = total.add(v).unwrap();
        }
        assert_eq!(
            shown(sum.sum()).unwrap(),
            Some(total.to_string()),
            "round {round}"
        );
    }
}

#[test]
fn a_weight_is_that_many_rows() {
    let mut weighted = Sum::with_squares();
    weighted.change(&number("2.50"), 3);
    weighted.change(&number("1"), -1);
    weighted.change(&number("1"), 2);
    let mut single = Sum::with_squares();
    for text in ["2.50", "2.50", "1", "2.50"] {
        single.add(&number(text));
    }
    assert_eq!(weighted, single);
    assert_eq!(
        single.sum().unwrap().map(|v| v.to_string()).as_deref(),
        Some("8.50")
    );
    single.change(&number("2.50"), -3);
    assert_eq!(
        single.sum().unwrap().map(|v| v.to_string()).as_deref(),
        Some("1")
    );
}

#[test]
fn decimals_of_arrow() {
    assert_eq!(Numeric::from_i128(1250, 2).unwrap().to_string(), "12.50");
    assert_eq!(Numeric::from_i128(-125, -2).unwrap().to_string(), "-12500");
    assert_eq!(number("12.345").to_i128(2), Some(1235));
    assert_eq!(number("-12.345").to_i128(4), Some(-123_450));
    assert_eq!(number("1e38").to_i128(0), Some(10i128.pow(38)));
    assert_eq!(number("1e38").to_i128(1), None);
    assert_eq!(Numeric::NAN.to_i128(0), None);
}

#[test]
fn binary_parameters_that_postgresql_refuses() {
    let state = |bytes: &[u8]| Numeric::read_wire(bytes).map_err(|e| e.state().0);
    assert_eq!(state(&[0, 0, 0, 0, 0x80, 0, 0, 0]), Err("22P03"));
    assert_eq!(state(&[0, 0, 0, 0, 0, 0, 0x40, 0]), Err("22P03"));
    assert_eq!(state(&[0, 1, 0, 0, 0, 0, 0, 0, 0x27, 0x10]), Err("22P03"));
    assert_eq!(state(&[0, 1, 0, 0, 0, 0, 0, 0]), Err("08P01"));
    // Digits beyond the scale are cut off.
    let cut = state(&[0, 2, 0, 0, 0, 0, 0, 1, 0, 7, 0x26, 0xAC]).map(|v| v.to_string());
    assert_eq!(cut.as_deref(), Ok("7.9"));
}
