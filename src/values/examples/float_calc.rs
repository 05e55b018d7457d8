//! A calculator of floats for comparisons with PostgreSQL: a question a line, the operation and its
//! arguments between tabs, the answer after them.

use tidemark_common::Result;
use tidemark_values::float;

/// The answer to a question, or `!SQLSTATE message`.
pub fn shown(operation: &str, arguments: &[f64]) -> String {
    match answer(operation, arguments) {
        Ok(x) if x.is_nan() => "NaN".into(),
        Ok(x) => x.to_bits().to_string(),
        Err(e) => format!("!{} {}", e.state().0, e.message()),
    }
}

fn answer(operation: &str, arguments: &[f64]) -> Result<f64> {
    let (x, y) = (arguments[0], arguments.get(1).copied().unwrap_or(0.0));
    match operation {
        "+" => float::add(x, y),
        "-" => float::add(x, -y),
        "*" => float::multiply(x, y),
        "/" => float::divide(x, y),
        "power" => float::power(x, y),
        "cbrt" => Ok(float::cbrt(x)),
        "sqrt" => float::sqrt(x),
        "exp" => float::exp(x),
        "ln" => float::ln(x),
        "log" => float::log10(x),
        "degrees" => float::degrees(x),
        "radians" => float::radians(x),
        "sign" => Ok(float::sign(x)),
        "sin" => float::sin(x),
        "cos" => float::cos(x),
        "tan" => float::tan(x),
        "cot" => float::cot(x),
        "asin" => float::asin(x),
        "acos" => float::acos(x),
        "atan" => Ok(x.atan()),
        "atan2" => Ok(x.atan2(y)),
        "sinh" => Ok(x.sinh()),
        "cosh" => Ok(x.cosh()),
        "tanh" => Ok(x.tanh()),
        "asinh" => Ok(float::asinh(x)),
        "acosh" => float::acosh(x),
        "atanh" => float::atanh(x),
        "sind" => float::sind(x),
        "cosd" => float::cosd(x),
        "tand" => float::tand(x),
        "cotd" => float::cotd(x),
        "asind" => float::asind(x),
        "acosd" => float::acosd(x),
        "atand" => Ok(float::atand(x)),
        "atan2d" => Ok(float::atan2d(x, y)),
        "width_bucket" => {
            let count = arguments[3] as i32;
            float::width_bucket(x, y, arguments[2], count).map(f64::from)
        }
        other => panic!("no operation {other}"),
    }
}

/// A question and its answer.
pub fn read(line: &str) -> (String, Vec<f64>, String) {
    let mut fields: Vec<&str> = line.split('\t').collect();
    let expected = fields.pop().unwrap_or_default().to_string();
    let arguments = fields[1..].iter().map(|f| f.parse().expect("a number"));
    (fields[0].to_string(), arguments.collect(), expected)
}

/// PostgreSQL's text of an answer in the form of [`shown`].
pub fn comparable(expected: &str) -> String {
    match expected.parse::<f64>() {
        Ok(x) if x.is_nan() => "NaN".into(),
        Ok(x) => x.to_bits().to_string(),
        Err(_) => expected.to_string(),
    }
}

#[allow(dead_code)]
fn main() {
    for line in std::io::stdin().lines().map_while(std::result::Result::ok) {
        let (operation, arguments, expected) = read(&line);
        let answer = shown(&operation, &arguments);
        if answer != comparable(&expected) {
            let number = answer.parse().map_or(0.0, f64::from_bits);
            println!("{line}\n  ours {answer} {number}");
        }
    }
}
