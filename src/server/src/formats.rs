//! In which formats values come and go.

/// Text or binary, per column or parameter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Formats {
    /// All in text.
    #[default]
    Text,
    /// All in binary.
    Binary,
    /// By their codes, 1 for binary.
    Each(Vec<i16>),
}

impl Formats {
    /// By the codes of a message: none for text, one for all, or one for each.
    pub fn new(codes: Vec<i16>) -> Formats {
        match codes.as_slice() {
            [] => Formats::Text,
            [1] => Formats::Binary,
            [_] => Formats::Text,
            _ => Formats::Each(codes),
        }
    }

    /// Whether column `i` is sent in binary.
    pub fn is_binary(&self, i: usize) -> bool {
        match self {
            Formats::Text => false,
            Formats::Binary => true,
            Formats::Each(codes) => codes.get(i) == Some(&1),
        }
    }
}
