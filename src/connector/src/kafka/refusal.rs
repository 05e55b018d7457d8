//! Which records of a delivery the broker refuses for what they are.
//!
//! The broker judges a batch as a whole and mostly does not say which record is at fault. So
//! batches get smaller until a refused record was alone in its own: the client puts no further
//! record into a batch that has reached its limit, so one that is as large as the limit is alone.
//! For a size the broker's rule is monotone: where one record is too large, every larger one is,
//! and need not be tried (unless batches are compressed). An invalid record is named by the broker.

use crate::kafka::producer::Failure;
use rdkafka::error::RDKafkaErrorCode;
use std::collections::BTreeMap;

/// By how much batches get smaller.
const SHRINKING: usize = 4;
/// What a record takes in a batch beside key and value, at most.
const RECORD_OVERHEAD_BYTES: usize = 36;

/// What was found out about the records of one delivery.
pub struct Refused {
    /// By their numbers.
    records: BTreeMap<usize, RDKafkaErrorCode>,
    /// The smallest record that was alone and too large, where that says something about others.
    too_large: Option<usize>,
    is_monotone: bool,
}

impl Refused {
    /// Nothing is known. `is_monotone`: what is larger than a record that is too large is too
    /// large.
    pub fn new(is_monotone: bool) -> Refused {
        Refused {
            records: BTreeMap::new(),
            too_large: None,
            is_monotone,
        }
    }

    /// Takes in what was refused of batches that were limited to `batch_bytes`. Returns the limit
    /// for the next try, if a smaller one is needed to tell who is at fault.
    pub fn learn(&mut self, failures: &[Failure], batch_bytes: usize) -> Option<usize> {
        let mut is_mixed = false;
        for failure in failures {
            let was_alone = failure.bytes >= batch_bytes || batch_bytes <= 1;
            if !was_alone && failure.code != RDKafkaErrorCode::InvalidRecord {
                is_mixed = true;
                continue;
            }
            self.records.insert(failure.record, failure.code);
            if self.is_monotone && failure.code == RDKafkaErrorCode::MessageSizeTooLarge {
                let least = self
                    .too_large
                    .map_or(failure.bytes, |b| b.min(failure.bytes));
                self.too_large = Some(least);
            }
        }
        is_mixed.then(|| (batch_bytes / SHRINKING).max(1))
    }

    /// Why the record with this number and size is not to be sent, if so.
    pub fn reason(&self, record: usize, bytes: usize) -> Option<String> {
        let too_large = self
            .too_large
            .is_some_and(|least| bytes > least + RECORD_OVERHEAD_BYTES)
            .then_some(RDKafkaErrorCode::MessageSizeTooLarge);
        let code = self.records.get(&record).copied().or(too_large)?;
        Some(Refused::reason_of(code, bytes))
    }

    /// The reason in words.
    pub fn reason_of(code: RDKafkaErrorCode, bytes: usize) -> String {
        match code {
            RDKafkaErrorCode::MessageSizeTooLarge => {
                format!("a record of {bytes} bytes is too large for the topic")
            }
            code => format!("the broker does not take a record: {code}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use RDKafkaErrorCode::{InvalidRecord, MessageSizeTooLarge};

    fn failure(record: usize, code: RDKafkaErrorCode, bytes: usize) -> Failure {
        Failure {
            record,
            code,
            bytes,
        }
    }

    #[test]
    fn batches_get_smaller_until_a_refused_record_was_alone() {
        let mut refused = Refused::new(true);
        let batch = [
            failure(0, MessageSizeTooLarge, 10),
            failure(1, MessageSizeTooLarge, 900),
        ];
        let (mut limit, mut tries) = (1_000_000, 0);
        while let Some(smaller) = refused.learn(&batch, limit) {
            (limit, tries) = (smaller, tries + 1);
            if limit <= 900 {
                break;
            }
        }
        assert_eq!((limit, tries), (244, 6));
        assert_eq!(refused.reason(1, 900), None);
        // the small one came through, the large one was alone
        assert_eq!(refused.learn(&batch[1..], limit), None);
        let reason = "a record of 900 bytes is too large for the topic";
        assert_eq!(refused.reason(1, 900).as_deref(), Some(reason));
        assert_eq!(refused.reason(0, 10), None);
        assert_eq!(refused.reason(7, 900), None, "not proven");
        assert!(refused.reason(7, 940).is_some(), "larger than one that is");
    }

    #[test]
    fn nothing_is_presumed_of_compressed_batches_and_of_other_reasons() {
        let mut refused = Refused::new(false);
        let large = failure(3, MessageSizeTooLarge, 900);
        assert_eq!(refused.learn(&[large], 900), None);
        assert!(refused.reason(3, 900).is_some() && refused.reason(4, 5000).is_none());
        let mut refused = Refused::new(true);
        let invalid = failure(3, InvalidRecord, 20);
        assert_eq!(refused.learn(&[invalid], 1_000_000), None);
        assert!(refused.reason(3, 20).is_some() && refused.reason(4, 5000).is_none());
    }
}
