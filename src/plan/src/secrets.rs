//! What must not be read by everybody who reads the catalog: secrets, and the values of options
//! that are secret by their name. The catalog has them sealed only, by a key that is not in it.

use crate::{Catalog, Relation};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Stands for a value that is not shown.
pub const MASK: &str = "********";

/// `CREATE SECRET`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    /// Its name.
    pub name: SecretName,
    /// Who made it.
    pub owner: String,
    /// Its sealed value.
    pub sealed: String,
}

/// The name of a secret, within its schema.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SecretName {
    /// Schema name.
    pub schema_name: String,
    /// Name within the schema.
    pub name: String,
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema_name, self.name)
    }
}

/// The value of an option that is sealed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hidden {
    /// The sealed value. Where it is a secret's, this is the secret's own, and changes with it.
    pub sealed: String,
    /// The secret that it is; none for a value that was written as such.
    #[serde(default)]
    pub secret: Option<SecretName>,
}

/// Whether the value of an option of this name is a secret, whoever writes it.
pub fn is_secret_option(name: &str) -> bool {
    let name = name.to_lowercase();
    let inside = [
        "password",
        "passwd",
        "passphrase",
        "secret",
        "jaas",
        "credential",
    ];
    let behind = [
        "key.pem",
        "access_key",
        "access.key",
        "accesskey",
        "private_key",
        "private.key",
        "api_key",
        "api.key",
        "token",
        "oauthbearer.config",
    ];
    inside.iter().any(|part| name.contains(part)) || behind.iter().any(|end| name.ends_with(end))
}

impl Catalog {
    /// A secret by its name.
    pub fn secret(&self, name: &SecretName) -> Option<&Secret> {
        self.secrets.iter().find(|s| s.name == *name)
    }
}

impl Relation {
    /// Whether one of its options is this secret.
    pub fn uses_secret(&self, name: &SecretName) -> bool {
        let hidden = self.connector.iter().flat_map(|c| c.hidden.values());
        hidden.into_iter().any(|h| h.secret.as_ref() == Some(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_secret_by_their_names() {
        for secret in [
            "properties.sasl.password",
            "properties.ssl.key.password",
            "properties.ssl.key.pem",
            "properties.sasl.jaas.config",
            "properties.sasl.oauthbearer.client.secret",
            "PROPERTIES.SSL.KEYSTORE.PASSWORD",
            "s3.credentials.secret",
            "aws_secret_access_key",
            "s3.access.key",
        ] {
            assert!(is_secret_option(secret), "{secret}");
        }
        for open in [
            "topic",
            "primary_key",
            "key.encode",
            "properties.sasl.username",
            "properties.ssl.key.location",
            "properties.ssl.certificate.pem",
            "properties.sasl.oauthbearer.token.endpoint.url",
        ] {
            assert!(!is_secret_option(open), "{open}");
        }
    }
}
