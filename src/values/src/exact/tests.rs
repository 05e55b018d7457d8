//! Against big integers that keep everything, and against the definitions.

use super::*;
use num_bigint::BigInt;
use num_traits::{Signed, Zero};
use tidemark_common::random::Random;

/// A double as a multiple of 2^-1074.
fn units(value: f64) -> BigInt {
    let (negative, mantissa, unit) = parts(value);
    let magnitude = BigInt::from(mantissa) << unit;
    if negative { -magnitude } else { magnitude }
}

/// Whether a double is the nearest one to `numerator * 2^unit / denominator`.
fn is_nearest(value: f64, numerator: &BigInt, unit: i32, denominator: u64) -> bool {
    // All of it in units of 2^-2148, times the denominator.
    let wanted = numerator << (unit + 2148) as usize;
    let off = |v: f64| {
        let told: BigInt = (units(v) << 1074usize) * denominator;
        (&wanted - told).abs()
    };
    let here = off(value);
    [value.next_down(), value.next_up()]
        .iter()
        .all(|v| v.is_infinite() || here <= off(*v))
}

fn double(random: &mut Random, range: u64) -> f64 {
    let exponent = (1023 - range / 2 + random.below_u64(range)).min(1533);
    let (sign, fraction) = (random.next_u64() & 1 << 63, random.next_u64() >> 12);
    f64::from_bits(sign | exponent << 52 | fraction)
}

fn values(random: &mut Random) -> Vec<f64> {
    let range = *random.pick(&[1, 3, 40, 300, 1000]);
    let any = |random: &mut Random| match random.below(12) {
        0 => 0.0,
        1 => -0.0,
        2 => f64::from_bits(1 + random.below_u64(9)),
        3 => random.below(100) as f64,
        _ => double(random, range),
    };
    (0..1 + random.below(30)).map(|_| any(random)).collect()
}

#[test]
fn sums_are_those_of_big_integers() {
    let mut random = Random(3);
    for _ in 0..300 {
        let (mut sum, mut products) = (Exact::default(), Exact::default());
        let (mut all, mut all_products) = (BigInt::zero(), BigInt::zero());
        for pair in values(&mut random).chunks(2) {
            let weight = *random.pick(&[1, -1, 5, i64::MAX, i64::MIN]);
            let [a, b] = [pair[0], pair[pair.len() - 1]];
            sum.add(a, weight);
            products.add_product(a, b, weight);
            all += units(a) * weight;
            all_products += units(a) * units(b) * weight;
        }
        for (sum, all) in [(&sum, &all), (&products, &all_products)] {
            let (negative, words) = sum.magnitude();
            let mut whole = BigInt::zero();
            for word in words.iter().rev() {
                whole = (whole << 64) + *word;
            }
            whole <<= 64 * sum.low;
            assert_eq!(if negative { -whole } else { whole }, *all);
            assert_eq!(sum.is_zero(), all.is_zero());
        }
    }
}

#[test]
fn variances_are_the_nearest_doubles() {
    let mut random = Random(5);
    for _ in 0..300 {
        let values = values(&mut random);
        let rows = values.len() as u64;
        let mut moments = Moments::default();
        values.iter().for_each(|v| moments.add(*v, 1));
        let sum: BigInt = values.iter().map(|v| units(*v)).sum();
        let squares: BigInt = values.iter().map(|v| units(*v) * units(*v)).sum();
        let numerator = squares * rows - &sum * &sum;
        let result = |spread| moments.result(spread).expect("it is in range");
        let variance = result(Spread::VarPop).expect("there are values");
        assert!(
            is_nearest(variance, &numerator, -2148, rows * rows),
            "{values:?}"
        );
        let deviation = result(Spread::StddevPop).expect("there are values");
        assert_eq!(deviation, variance.sqrt());
        match result(Spread::VarSamp) {
            None => assert_eq!(rows, 1),
            Some(variance) => {
                let divisor = rows * (rows - 1);
                assert!(
                    is_nearest(variance, &numerator, -2148, divisor),
                    "{values:?}"
                );
            }
        }
    }
}

#[test]
fn covariances_are_the_nearest_doubles() {
    let mut random = Random(7);
    for _ in 0..300 {
        let (y, x) = (values(&mut random), values(&mut random));
        let pairs: Vec<(f64, f64)> = y.into_iter().zip(x).collect();
        let rows = pairs.len() as u64;
        let mut kept = Pairs::default();
        let statistic = Regression::CovarPop;
        pairs
            .iter()
            .for_each(|(y, x)| kept.add(statistic, *y, *x, 1));
        let (mut sum_x, mut sum_y, mut products) = (BigInt::zero(), BigInt::zero(), BigInt::zero());
        for (y, x) in &pairs {
            products += units(*x) * units(*y);
            sum_x += units(*x);
            sum_y += units(*y);
        }
        let numerator = products * rows - sum_x * sum_y;
        let covariance = kept.result(statistic).unwrap().expect("there are pairs");
        assert!(
            is_nearest(covariance, &numerator, -2148, rows * rows),
            "{pairs:?}"
        );
    }
}

#[test]
fn order_parts_retraction_and_storing_do_not_matter() {
    let mut random = Random(11);
    for _ in 0..100 {
        let (y, x) = (values(&mut random), values(&mut random));
        let statistic = random.pick(&Regression::NAMED).1;
        let form = |pairs: &Pairs| {
            let mut bytes = Vec::new();
            pairs.encode(&mut bytes);
            bytes
        };
        let mut forward = Pairs::default();
        y.iter()
            .zip(&x)
            .for_each(|(y, x)| forward.add(statistic, *y, *x, 1));
        let mut parts = [Pairs::default(), Pairs::default()];
        for (i, (y, x)) in y.iter().zip(&x).enumerate().rev() {
            let part = &mut parts[i % 2];
            for other in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300, 7.25] {
                part.add(statistic, other, *x, 1);
                part.add(statistic, *y, other, -2);
            }
            part.add(statistic, *y, *x, 3);
            *part = Pairs::decode(&form(part)).expect("a stored form");
            part.add(statistic, *y, *x, -2);
            for other in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300, 7.25] {
                part.add(statistic, *y, other, 2);
                part.add(statistic, other, *x, -1);
            }
        }
        let [mut backward, rest] = parts;
        backward.merge(&rest);
        assert_eq!(form(&forward), form(&backward));
        y.iter()
            .zip(&x)
            .for_each(|(y, x)| forward.add(statistic, *y, *x, -1));
        assert_eq!(form(&forward), form(&Pairs::default()));
    }
}

/// The statistic of some pairs `(y, x)`.
fn of(statistic: Regression, pairs: &[(f64, f64)]) -> Result<Option<f64>, String> {
    let mut kept = Pairs::default();
    pairs
        .iter()
        .for_each(|(y, x)| kept.add(statistic, *y, *x, 1));
    kept.result(statistic).map_err(|e| e.to_string())
}

#[test]
fn what_is_on_a_line_is_told_so() {
    let mut random = Random(13);
    for _ in 0..200 {
        let (slope, intercept) = (random.below(100) as f64 - 50.5, random.below(9) as f64);
        let x: Vec<f64> = (0..2 + random.below(9))
            .map(|i| (i * i) as f64 * 0.5f64.powi(random.below(30) as i32))
            .collect();
        let pairs: Vec<_> = x.iter().map(|x| (intercept + slope * x, *x)).collect();
        if x.iter().all(|v| *v == x[0]) {
            continue;
        }
        let one = slope.signum();
        assert_eq!(of(Regression::Correlation, &pairs), Ok(Some(one)));
        assert_eq!(of(Regression::Determination, &pairs), Ok(Some(1.0)));
        assert_eq!(of(Regression::Slope, &pairs), Ok(Some(slope)));
        assert_eq!(of(Regression::Intercept, &pairs), Ok(Some(intercept)));
    }
}

#[test]
fn slopes_are_the_nearest_doubles() {
    let mut random = Random(17);
    for _ in 0..200 {
        let any = |random: &mut Random| random.below_u64(1 << 20) as f64;
        let mut pair = || (any(&mut random), any(&mut random));
        let pairs: Vec<(f64, f64)> = (0..4).map(|_| pair()).collect();
        let sum =
            |of: &dyn Fn(&(f64, f64)) -> f64| -> i128 { pairs.iter().map(|p| of(p) as i128).sum() };
        let (sum_x, sum_y) = (sum(&|p| p.1), sum(&|p| p.0));
        let xy = 4 * sum(&|p| p.0 * p.1) - sum_x * sum_y;
        let xx = 4 * sum(&|p| p.1 * p.1) - sum_x * sum_x;
        let slope = of(Regression::Slope, &pairs).unwrap().expect("x varies");
        let denominator = u64::try_from(xx).expect("it is small");
        assert!(
            is_nearest(slope, &BigInt::from(xy), 0, denominator),
            "{pairs:?}"
        );
    }
}

#[test]
fn the_answers_of_postgres() {
    let pairs = [(1.0, 2.0), (2.0, 3.0), (4.0, 7.0), (-1.0, 0.5)];
    let answers = [
        4.0,
        23.1875,
        12.999999999999998,
        16.75,
        3.125,
        1.5,
        4.1875,
        5.583333333333333,
        0.9647530755515801,
        0.9307484967862328,
        0.7223719676549866,
        -0.7574123989218329,
    ];
    for ((name, statistic), answer) in Regression::NAMED.into_iter().zip(answers) {
        let told = of(statistic, &pairs).unwrap().expect("it is defined");
        assert!(
            (told - answer).abs() <= 1e-14 * answer.abs(),
            "{name}: {told}"
        );
        assert_eq!(of(statistic, &[]), Ok(None));
    }
    assert_eq!(of(Regression::Slope, &[(1.0, 0.1), (2.0, 0.1)]), Ok(None));
    assert_eq!(
        of(Regression::Determination, &[(0.1, 1.0), (0.1, 2.0)]),
        Ok(Some(1.0))
    );
    assert_eq!(of(Regression::CovarSamp, &[(1.0, 2.0)]), Ok(None));
    assert_eq!(
        of(Regression::AverageX, &[(1.0, f64::INFINITY), (1.0, 2.0)]),
        Ok(Some(f64::INFINITY))
    );
}

#[test]
fn what_runs_over_is_an_error_and_what_is_infinite_is_not() {
    let result = |values: &[f64]| {
        let mut moments = Moments::default();
        values.iter().for_each(|v| moments.add(*v, 1));
        moments.result(Spread::VarSamp).map_err(|e| e.to_string())
    };
    assert!(
        result(&[1e200, -1e200])
            .unwrap_err()
            .contains("value out of range: overflow")
    );
    // PostgreSQL's squares run over on their way to this.
    assert_eq!(result(&[1e200, 1e200]), Ok(Some(0.0)));
    assert_eq!(result(&[f64::INFINITY]), Ok(None));
    for values in [[1e200, -1e200, f64::NAN], [f64::INFINITY, 1e200, -1e200]] {
        assert!(result(&values).unwrap().unwrap().is_nan());
    }
    let pairs = [(1.0, 1e200), (2.0, -1e200)];
    assert!(of(Regression::SquaresOfX, &pairs).is_err());
    assert_eq!(of(Regression::Correlation, &pairs), Ok(Some(-1.0)));
    assert_eq!(of(Regression::Slope, &pairs), Ok(Some(-5e-201)));
    assert!(of(Regression::AverageX, &[(1.0, f64::MAX), (1.0, f64::MAX)]).is_ok());
    let unknown = [(1.0, f64::INFINITY), (2.0, 3.0)];
    assert!(
        of(Regression::SquaresOfX, &unknown)
            .unwrap()
            .unwrap()
            .is_nan()
    );
}
