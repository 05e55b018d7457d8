//! Where checkpoints are: `file:///folder`, `s3://bucket/prefix` or `memory:`.
//!
//! What S3 needs comes from the `AWS_*` environment. Where no credentials are set, opening fails
//! and names the variables: the address at which machines of Amazon's hand out credentials
//! (169.254.169.254) is asked only if `AWS_METADATA_ENDPOINT` says so, because elsewhere nobody
//! answers there, or somebody else does.

use object_store::ClientConfigKey;
use object_store::ObjectStore;
use object_store::RetryConfig;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::prefix::PrefixStore;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tidemark_common::{Error, Result, SqlState};

/// What a store on S3 is told by; for hints.
pub(super) const S3_SETTINGS: &str = "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, for \
     another service than Amazon's also AWS_ENDPOINT (http://host:port or https://host), and \
     AWS_REGION where it is not us-east-1.";

/// Environment variables that together say where credentials come from.
const CREDENTIALS: [&[&str]; 6] = [
    &["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"],
    &["AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN"],
    &["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"],
    &[
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    ],
    &["AWS_SKIP_SIGNATURE"],
    &["AWS_METADATA_ENDPOINT"],
];

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

    /// A handle to the place. Asks nobody.
    pub(super) fn open(&self) -> Result<Arc<dyn ObjectStore>> {
        let failed = |e: object_store::Error| {
            Error::user(
                SqlState::INVALID_PARAMETER,
                format!("checkpoint store: {e}"),
            )
            .with_hint(S3_SETTINGS)
        };
        Ok(match self {
            Location::File(folder) => {
                std::fs::create_dir_all(folder).map_err(|e| {
                    Error::from(e).context(format!("checkpoint folder {}", folder.display()))
                })?;
                Arc::new(LocalFileSystem::new_with_prefix(folder).map_err(failed)?)
            }
            Location::S3 { bucket, prefix } => {
                check_credentials(|name| std::env::var(name).is_ok_and(|v| !v.is_empty()))?;
                let store = s3(bucket).build().map_err(failed)?;
                if prefix.is_empty() {
                    Arc::new(store)
                } else {
                    Arc::new(PrefixStore::new(store, prefix.as_str()))
                }
            }
            Location::Memory => Arc::new(InMemory::new()),
        })
    }
}

/// Who waits for the store tries again by itself, and says so: a single request gives up soon.
fn s3(bucket: &str) -> AmazonS3Builder {
    let waits = [
        ("AWS_CONNECT_TIMEOUT", ClientConfigKey::ConnectTimeout, "5s"),
        ("AWS_TIMEOUT", ClientConfigKey::Timeout, "120s"),
    ];
    let mut builder = AmazonS3Builder::from_env();
    for (variable, key, value) in waits {
        if std::env::var_os(variable).is_none() {
            builder = builder.with_config(AmazonS3ConfigKey::Client(key), value);
        }
    }
    builder
        .with_bucket_name(bucket)
        .with_allow_http(true)
        .with_retry(RetryConfig {
            max_retries: 2,
            retry_timeout: Duration::from_secs(10),
            ..RetryConfig::default()
        })
}

/// Refuses to go without credentials; `is_set` asks the environment.
fn check_credentials(is_set: impl Fn(&str) -> bool) -> Result<()> {
    if CREDENTIALS
        .iter()
        .any(|way| way.iter().all(|name| is_set(name)))
    {
        return Ok(());
    }
    let half = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"];
    let missing: Vec<&str> = half.into_iter().filter(|name| !is_set(name)).collect();
    Err(Error::user(
        SqlState::INVALID_PARAMETER,
        format!(
            "checkpoint store: there are no credentials for S3: {} not set",
            match missing[..] {
                [one] => format!("{one} is"),
                _ => format!("{} are", missing.join(" and ")),
            }
        ),
    )
    .with_hint(S3_SETTINGS))
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

    #[test]
    fn missing_credentials_are_named() {
        let with = |set: &[&str]| check_credentials(|name| set.contains(&name));
        let message = |set: &[&str]| with(set).unwrap_err().message().to_string();
        assert_eq!(
            message(&[]),
            "checkpoint store: there are no credentials for S3: AWS_ACCESS_KEY_ID and \
             AWS_SECRET_ACCESS_KEY are not set"
        );
        assert_eq!(
            message(&["AWS_ACCESS_KEY_ID", "AWS_ENDPOINT"]),
            "checkpoint store: there are no credentials for S3: AWS_SECRET_ACCESS_KEY is not set"
        );
        let hint = with(&[]).unwrap_err();
        for name in ["AWS_ACCESS_KEY_ID", "AWS_ENDPOINT", "AWS_REGION"] {
            assert!(hint.hint().unwrap_or_default().contains(name), "{name}");
        }
        with(&["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]).unwrap();
        with(&["AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN"]).unwrap();
        with(&["AWS_METADATA_ENDPOINT"]).unwrap();
    }
}
