//! Where checkpoints are: `file:///folder`, `s3://bucket/prefix` or `memory:`.

use object_store::ObjectStore;
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::prefix::PrefixStore;
use std::path::PathBuf;
use std::sync::Arc;
use tidemark_common::{Error, Result, SqlState};

/// A checkpoint URL, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Location {
    /// A folder of this machine.
    File(PathBuf),
    /// A prefix (may be empty) of an S3 bucket.
    S3 { bucket: String, prefix: String },
    /// This process' memory.
    Memory,
}

impl Location {
    /// Reads the URL; one that we cannot use is the user's error.
    pub(super) fn parse(url: &str) -> Result<Location> {
        let bad = |what: &str| {
            Err(Error::user(
                SqlState::INVALID_PARAMETER,
                format!("checkpoint URL \"{url}\": {what}"),
            )
            .with_hint("Write file:///folder or s3://bucket/prefix."))
        };
        if url == "memory:" {
            return Ok(Location::Memory);
        }
        match url.split_once("://") {
            Some(("file", "")) => bad("the folder is missing"),
            Some(("file", folder)) => Ok(Location::File(PathBuf::from(folder))),
            Some(("s3", rest)) => {
                let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
                if bucket.is_empty() {
                    return bad("the bucket is missing");
                }
                Ok(Location::S3 {
                    bucket: bucket.to_string(),
                    prefix: prefix.trim_matches('/').to_string(),
                })
            }
            Some((scheme, _)) => bad(&format!("scheme \"{scheme}\" is not known")),
            None => bad("the scheme is missing"),
        }
    }

    /// A handle to the place.
    pub(super) fn open(self) -> Result<Arc<dyn ObjectStore>> {
        let failed = |e: object_store::Error| {
            Error::unavailable(SqlState::IO_ERROR, format!("checkpoint store: {e}"))
        };
        Ok(match self {
            Location::File(folder) => {
                std::fs::create_dir_all(&folder).map_err(|e| {
                    Error::from(e).context(format!("checkpoint folder {}", folder.display()))
                })?;
                Arc::new(LocalFileSystem::new_with_prefix(folder).map_err(failed)?)
            }
            Location::S3 { bucket, prefix } => {
                let store = AmazonS3Builder::from_env()
                    .with_bucket_name(bucket)
                    .with_allow_http(true)
                    .build()
                    .map_err(failed)?;
                if prefix.is_empty() {
                    Arc::new(store)
                } else {
                    Arc::new(PrefixStore::new(store, prefix))
                }
            }
            Location::Memory => Arc::new(InMemory::new()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let s3 = |bucket: &str, prefix: &str| Location::S3 {
            bucket: bucket.into(),
            prefix: prefix.into(),
        };
        assert_eq!(
            Location::parse("file:///var/lib/tidemark").unwrap(),
            Location::File("/var/lib/tidemark".into())
        );
        assert_eq!(Location::parse("s3://bucket").unwrap(), s3("bucket", ""));
        assert_eq!(Location::parse("s3://bucket/").unwrap(), s3("bucket", ""));
        assert_eq!(
            Location::parse("s3://bucket/a/b/").unwrap(),
            s3("bucket", "a/b")
        );
        for (url, message) in [
            (
                "s3:///prefix",
                "checkpoint URL \"s3:///prefix\": the bucket is missing",
            ),
            (
                "gs://bucket",
                "checkpoint URL \"gs://bucket\": scheme \"gs\" is not known",
            ),
            ("/tmp/x", "checkpoint URL \"/tmp/x\": the scheme is missing"),
            (
                "file://",
                "checkpoint URL \"file://\": the folder is missing",
            ),
        ] {
            assert_eq!(Location::parse(url).unwrap_err().message(), message);
        }
    }
}
