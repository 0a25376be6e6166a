//! Who is calling. The tenant is always the credential's, never the request's (G8).

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderValue, header};
use contextkeep_core::TenantId;
use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// Whose data a caller without a credential touches, where that is allowed.
pub const ANONYMOUS_TENANT: &str = "default";
/// Shortest secret accepted, in bytes: guessing 16 random bytes is hopeless, guessing a word is not.
const SECRET_BYTES_MIN: usize = 16;

/// Who may call.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AuthSettings {
    /// Credentials. Without any, everybody who reaches the port is let in as tenant `default`, which is
    /// refused unless `server.bind` is a loopback address.
    pub keys: Vec<KeySettings>,
}

/// One credential: sent as `Authorization: Bearer <secret>`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeySettings {
    /// For the log; never the secret.
    pub name: String,
    /// Whose data it opens.
    pub tenant: String,
    /// At least 16 bytes. `env:NAME` and `file:PATH` keep it out of the file.
    #[serde(skip_serializing)]
    #[schemars(with = "String")]
    pub secret: SecretString,
    /// Whether it also opens `/admin/v1/…` and `/metrics`, which show how the server and its database fare: figures
    /// of all tenants together, nothing that one of them stored.
    #[serde(default)]
    pub admin: bool,
}

impl AuthSettings {
    /// What is wrong, as key path below `auth` and problem.
    pub fn problems(&self) -> Vec<(String, String)> {
        let mut problems = Vec::new();
        for (index, key) in self.keys.iter().enumerate() {
            if TenantId::parse(&key.tenant).is_err() {
                problems.push((
                    format!("keys.{index}.tenant"),
                    format!("{:?} is not a tenant id", key.tenant),
                ));
            }
            if key.secret.expose_secret().len() < SECRET_BYTES_MIN {
                problems.push((
                    format!("keys.{index}.secret"),
                    format!("is shorter than {SECRET_BYTES_MIN} bytes"),
                ));
            }
            if self
                .keys
                .iter()
                .take(index)
                .any(|other| other.secret.expose_secret() == key.secret.expose_secret())
            {
                problems.push((
                    format!("keys.{index}.secret"),
                    "is the same as an earlier one".to_owned(),
                ));
            }
        }
        problems
    }
}

/// The authenticated caller; a middleware puts it into the extensions of every request that may pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// Whose data the caller may touch.
    pub tenant: TenantId,
    /// Name of the credential, for the log. Never the secret.
    pub name: Arc<str>,
    /// Whether the caller may see how the server fares.
    pub admin: bool,
}

impl Principal {
    /// A caller on this machine who needs no credential: the command line, stdio, a loopback port without keys.
    pub fn local(tenant: TenantId) -> Self {
        Self {
            tenant,
            name: "local".into(),
            admin: true,
        }
    }
}

/// Why a caller is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No credential.
    #[error("the request has no credential")]
    Missing,
    /// One that is not known.
    #[error("the credential is not known")]
    Unknown,
    /// A web page that talks to a server on its visitor's machine.
    #[error("the request comes from a web page or names another host")]
    Foreign,
}

impl Refusal {
    /// What would work.
    pub const fn hint(self) -> &'static str {
        match self {
            Self::Missing | Self::Unknown => "send Authorization: Bearer with a secret of auth.keys",
            Self::Foreign => "call 127.0.0.1 or localhost from outside a browser, or configure auth.keys",
        }
    }
}

/// Decides who is let in.
#[derive(Debug)]
pub struct Gatekeeper {
    keys: Vec<([u8; 32], Principal)>,
    /// Who calls without a credential, where that is allowed.
    anonymous: Principal,
}

impl Gatekeeper {
    /// Takes the settings, which have passed [`AuthSettings::problems`].
    pub fn new(settings: &AuthSettings) -> Result<Self, contextkeep_core::Error> {
        let keys = settings.keys.iter().map(|key| {
            let principal = Principal {
                tenant: TenantId::parse(&key.tenant)?,
                name: key.name.as_str().into(),
                admin: key.admin,
            };
            Ok((Sha256::digest(key.secret.expose_secret()).into(), principal))
        });
        Ok(Self {
            keys: keys.collect::<Result<_, contextkeep_core::Error>>()?,
            anonymous: Principal::local(TenantId::parse(ANONYMOUS_TENANT)?),
        })
    }

    /// Whether callers need a credential.
    pub fn is_closed(&self) -> bool {
        !self.keys.is_empty()
    }

    /// Who the caller is. Lent: most of those who ask need no copy, and copies are counted.
    pub fn admit(&self, headers: &HeaderMap) -> Result<&Principal, Refusal> {
        if !self.is_closed() {
            return if is_local(headers) {
                Ok(&self.anonymous)
            } else {
                Err(Refusal::Foreign)
            };
        }
        let presented = headers
            .get(header::AUTHORIZATION)
            .and_then(bearer)
            .ok_or(Refusal::Missing)?;
        let digest = Sha256::digest(presented);
        // Every key is compared, each in constant time: how long it takes says nothing about which one is near.
        let mut found = None;
        for (known, principal) in &self.keys {
            if bool::from(known.as_slice().ct_eq(digest.as_slice())) {
                found = Some(principal);
            }
        }
        found.ok_or(Refusal::Unknown)
    }
}

fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, secret) = value.as_bytes().split_at_checked(7)?;
    scheme
        .eq_ignore_ascii_case(b"Bearer ")
        .then_some(secret.trim_ascii())
}

/// Without keys the loopback address is the only protection, and a web page in a browser on this machine is
/// behind it: by a name that was rebound to 127.0.0.1, or by a request that needs no permission to be sent.
fn is_local(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let origin = headers
        .get(header::ORIGIN)
        .map(|origin| origin.to_str().unwrap_or_default());
    let origin_host = origin.map(|origin| origin.split_once("://").map_or("", |(_, host)| host));
    host.is_none_or(is_loopback_name) && origin_host.is_none_or(is_loopback_name)
}

fn is_loopback_name(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    // What nearly everybody says, before it is read as an address.
    name == "127.0.0.1"
        || name.eq_ignore_ascii_case("localhost")
        || name
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(header::HeaderName, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap()))
            .collect()
    }

    fn closed() -> Gatekeeper {
        let key = |name: &str, tenant: &str, secret: &str| KeySettings {
            name: name.into(),
            tenant: tenant.into(),
            secret: SecretString::from(secret),
            admin: name == "b",
        };
        Gatekeeper::new(&AuthSettings {
            keys: vec![
                key("a", "acme", "0123456789abcdef"),
                key("b", "other", "fedcba9876543210"),
            ],
        })
        .unwrap()
    }

    #[test]
    fn a_known_secret_opens_its_own_tenant() {
        let gatekeeper = closed();
        let admitted = gatekeeper
            .admit(&headers(&[(header::AUTHORIZATION, "bearer fedcba9876543210")]))
            .unwrap();
        assert_eq!((admitted.tenant.as_str(), &*admitted.name), ("other", "b"));
        assert!(admitted.admin);
        let admitted = gatekeeper
            .admit(&headers(&[(header::AUTHORIZATION, "Bearer 0123456789abcdef")]))
            .unwrap();
        assert!(!admitted.admin);
    }

    #[test]
    fn other_credentials_open_nothing() {
        for value in [
            "Bearer ",
            "Bearer 0123456789abcde",
            "Basic 0123456789abcdef",
            "0123456789abcdef",
            "Bearer 0123456789abcdef0",
        ] {
            assert!(
                closed()
                    .admit(&headers(&[(header::AUTHORIZATION, value)]))
                    .is_err(),
                "{value}"
            );
        }
        assert_eq!(closed().admit(&HeaderMap::new()), Err(Refusal::Missing));
    }

    #[test]
    fn without_keys_web_pages_stay_outside() {
        let open = Gatekeeper::new(&AuthSettings::default()).unwrap();
        for (host, origin, local) in [
            ("127.0.0.1:7400", None, true),
            ("localhost:7400", None, true),
            ("[::1]:7400", Some("http://localhost:7400"), true),
            ("evil.example:7400", None, false),
            ("127.0.0.1.evil.example", None, false),
            ("127.0.0.1:7400", Some("https://evil.example"), false),
            ("127.0.0.1:7400", Some("null"), false),
        ] {
            let mut pairs = vec![(header::HOST, host)];
            pairs.extend(origin.map(|origin| (header::ORIGIN, origin)));
            assert_eq!(open.admit(&headers(&pairs)).is_ok(), local, "{host} {origin:?}");
        }
    }

    #[test]
    fn weak_and_repeated_secrets_are_reported_together() {
        let key = |secret: &str, tenant: &str| KeySettings {
            name: "k".into(),
            tenant: tenant.into(),
            secret: SecretString::from(secret),
            admin: false,
        };
        let settings = AuthSettings {
            keys: vec![
                key("short", "a/b"),
                key("0123456789abcdef", "a"),
                key("0123456789abcdef", "a"),
            ],
        };
        let paths: Vec<String> = settings.problems().into_iter().map(|(path, _)| path).collect();
        assert_eq!(paths, ["keys.0.tenant", "keys.0.secret", "keys.2.secret"]);
    }
}
