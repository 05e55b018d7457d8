//! Unicode's normal forms: `normalize(text, form)` and `text IS form NORMALIZED`.

use tidemark_common::{Error, Result, SqlState};
use unicode_normalization::UnicodeNormalization;

/// A normal form.
#[allow(missing_docs)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Nfc,
    Nfd,
    Nfkc,
    Nfkd,
}

impl Form {
    /// The form of this name, in letters of either case.
    ///
    /// Errors: `22023` for a name of none.
    pub fn named(name: &str) -> Result<Form> {
        let forms = [
            ("NFC", Form::Nfc),
            ("NFD", Form::Nfd),
            ("NFKC", Form::Nfkc),
            ("NFKD", Form::Nfkd),
        ];
        let found = forms.iter().find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map(|(_, form)| *form).ok_or_else(|| {
            Error::user(
                SqlState::INVALID_PARAMETER,
                format!("invalid normalization form: {name}"),
            )
        })
    }

    /// Writes a text in this form.
    pub fn write(self, text: &str, out: &mut String) {
        // What is ASCII is in every form.
        if text.is_ascii() {
            return out.push_str(text);
        }
        match self {
            Form::Nfc => out.extend(text.nfc()),
            Form::Nfd => out.extend(text.nfd()),
            Form::Nfkc => out.extend(text.nfkc()),
            Form::Nfkd => out.extend(text.nfkd()),
        }
    }

    /// Whether a text is in this form.
    pub fn holds(self, text: &str) -> bool {
        text.is_ascii()
            || match self {
                Form::Nfc => text.nfc().eq(text.chars()),
                Form::Nfd => text.nfd().eq(text.chars()),
                Form::Nfkc => text.nfkc().eq(text.chars()),
                Form::Nfkd => text.nfkd().eq(text.chars()),
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_a_text() {
        let of = |form: &str, text: &str| {
            let form = Form::named(form).unwrap();
            let mut out = String::new();
            form.write(text, &mut out);
            assert!(form.holds(&out));
            assert_eq!(form.holds(text), out == text);
            out
        };
        assert_eq!(of("NFC", "a\u{308}"), "\u{e4}");
        assert_eq!(of("nfd", "\u{e4}"), "a\u{308}");
        assert_eq!(of("NFKC", "\u{fb01}"), "fi");
        assert_eq!(of("NFC", "\u{fb01}"), "\u{fb01}");
        assert_eq!(of("NFKD", "plain"), "plain");
        assert_eq!(Form::named("a").unwrap_err().state().0, "22023");
    }
}
