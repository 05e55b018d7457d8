//! Reads a time of day. A zone is ignored, a date only where PostgreSQL bears one.

use super::calendar::Civil;
use super::failure::Failure;
use super::field::*;
use super::read::{Label, ReadZone, Session, iso_time, labelled, zone_of_field, zone_of_word};
use super::token::{SHORT, Shape, Tokens};
use super::word::{Word, word};
use super::zone::displacement;
use super::{Zone, round_micros};
use tidemark_common::Result;

/// Reads a time of day, rounded to `precision` digits of the second (6 keeps it).
///
/// Errors: `22007`, `22008`, `22009` and `22023`, as PostgreSQL.
pub fn read_time(text: &str, precision: u8, session: &Session) -> Result<i64> {
    let civil = read(text, session).map_err(|failure| failure.error(text, "time"))?;
    Ok(round_micros(civil.time(), precision))
}

fn read(text: &str, session: &Session) -> Result<Civil, Failure> {
    let tokens = Tokens::cut(text, SHORT)?;
    let mut reader = Reader {
        draft: Draft::default(),
        zone: ReadZone::None,
        label: None,
        tokens: &tokens,
        session,
    };
    for index in 0..tokens.count {
        reader.field(index)?;
    }
    reader.finish()
}

struct Reader<'a> {
    draft: Draft,
    zone: ReadZone,
    label: Option<Label>,
    tokens: &'a Tokens,
    session: &'a Session,
}

impl Reader<'_> {
    fn field(&mut self, index: usize) -> Result<(), Failure> {
        let text = self.tokens.field(index);
        let given = match self.tokens.shape(index) {
            Shape::Date => self.date(text, index)?,
            Shape::Time => self.draft.time(text)?,
            Shape::Zone => {
                self.zone = ReadZone::Offset(displacement(text)?);
                ZONE
            }
            Shape::Number => self.number(text, index)?,
            Shape::Word | Shape::Special => match self.word(text, index)? {
                Some(given) => given,
                None => return Ok(()),
            },
        };
        self.draft.note(given)
    }

    fn shape(&self, index: usize) -> Option<Shape> {
        (index < self.tokens.count).then(|| self.tokens.shape(index))
    }

    fn date(&mut self, text: &[u8], index: usize) -> Result<Seen, Failure> {
        let count = self.tokens.count;
        let draft = &mut self.draft;
        let date_is_borne = index == 0
            && count >= 2
            && (self.tokens.shape(count - 1) == Shape::Date || self.tokens.shape(1) == Shape::Time);
        if date_is_borne {
            return draft.date(text, draft.seen);
        }
        if !text[0].is_ascii_digit() {
            self.zone = ReadZone::Named(zone_of_field(text)?);
            return Ok(ZONE);
        }
        if draft.seen & TIME == TIME {
            return Err(Failure::Format);
        }
        let dash = text
            .iter()
            .position(|b| *b == b'-')
            .ok_or(Failure::Format)?;
        self.zone = ReadZone::Offset(displacement(&text[dash..])?);
        let (given, _) = draft.compact(&text[..dash], draft.seen | DATE)?;
        Ok(given | ZONE)
    }

    fn number(&mut self, text: &[u8], index: usize) -> Result<Seen, Failure> {
        if let Some(label) = self.label.take() {
            return labelled(&mut self.draft, &mut self.zone, label, text);
        }
        let date_is_borne = index == 0
            && self.tokens.count >= 2
            && self.shape(self.tokens.count - 1) == Some(Shape::Date);
        let draft = &mut self.draft;
        let seen = draft.seen | DATE;
        match text.iter().position(|b| *b == b'.') {
            Some(_) if date_is_borne => draft.date(text, draft.seen),
            Some(point) if point > 2 => Ok(draft.compact(text, seen)?.0),
            Some(_) => Err(Failure::Format),
            None if text.len() > 4 => Ok(draft.compact(text, seen)?.0),
            None => draft.number(text, false, seen),
        }
    }

    fn word(&mut self, text: &[u8], index: usize) -> Result<Option<Seen>, Failure> {
        if let Some((zone, given)) = zone_of_word(text) {
            self.zone = zone;
            return Ok(Some(given));
        }
        let draft = &mut self.draft;
        Ok(Some(match word(text) {
            None => {
                let name = std::str::from_utf8(text).map_err(|_| Failure::Format)?;
                self.zone = ReadZone::Named(Zone::of_name(name).ok_or(Failure::Format)?);
                ZONE
            }
            Some(Word::Ignored) => return Ok(None),
            Some(Word::Now) => {
                draft.at = self.session.local_now();
                TIME
            }
            Some(Word::Midnight) => {
                draft.set_time(0);
                self.zone = ReadZone::Offset(0);
                TIME | ZONE
            }
            Some(Word::Summer) => {
                self.zone = ReadZone::Offset(0);
                SUMMER | SUMMER_ZONE
            }
            Some(Word::Half(is_after_noon)) => {
                draft.half = Some(is_after_noon);
                HALF
            }
            Some(Word::Era(before_christ)) => {
                draft.before_christ = before_christ;
                ERA
            }
            Some(Word::Label(unit)) => {
                self.label = Some(Label::Unit(unit));
                0
            }
            Some(Word::IsoTime) => {
                self.label = Some(iso_time(self.tokens, index)?);
                0
            }
            Some(_) => return Err(Failure::Format),
        }))
    }

    fn finish(mut self) -> Result<Civil, Failure> {
        let draft = &mut self.draft;
        draft.finish_date()?;
        draft.finish_half()?;
        if draft.time_overflows() {
            return Err(Failure::Field);
        }
        if draft.seen & TIME != TIME {
            return Err(Failure::Format);
        }
        if draft.seen & SUMMER != 0 && draft.seen & ZONE == 0 {
            return Err(Failure::Format);
        }
        let date = draft.seen & DATE;
        let is_known = match &self.zone {
            ReadZone::Offset(_) => true,
            // With no zone but the session's, or one of an abbreviation, today is the date.
            ReadZone::None => date == 0,
            ReadZone::Named(_) if draft.seen & CHANGING_ZONE != 0 => date == 0,
            ReadZone::Named(zone) => zone.never_changes(),
        };
        if !is_known && date != DATE {
            return Err(Failure::Format);
        }
        Ok(draft.at)
    }
}
