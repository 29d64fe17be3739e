//! How we log in: what CONNECT says of us.
//!
//! ```text
//! user, password | token | nkey: public key, signature of the server's nonce | credentials: JWT, signature of the nonce
//! ```

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use holm_identity::Secret;
use serde_json::{Value, json};

use super::Info;
use super::nkey::UserKey;
use crate::routing::definition::{DefinitionError, NatsSettings};

/// Who we are to the server.
#[derive(Debug)]
pub(super) enum Login {
    /// Nobody is asked, or the certificate of TLS says it.
    Nobody,
    /// User and password.
    Password { user: String, password: Secret },
    /// A token.
    Token(Secret),
    /// A key that the server knows.
    Key(UserKey),
    /// A key, and the JWT that vouches for it.
    Credentials { jwt: Secret, key: UserKey },
}

impl Login {
    /// The login of settings.
    ///
    /// # Errors
    /// [`DefinitionError`] with the member.
    pub(super) fn read(settings: &NatsSettings) -> Result<Self, DefinitionError> {
        let wrong = |member: &str, why: &str| DefinitionError::new(member, why);
        if let Some(text) = &settings.credentials {
            let jwt = section(text.expose(), "NATS USER JWT").ok_or_else(|| {
                wrong(
                    "credentials",
                    "has no section `BEGIN NATS USER JWT`; give the whole text of a credentials file",
                )
            })?;
            let seed = section(text.expose(), "USER NKEY SEED")
                .ok_or_else(|| wrong("credentials", "has no section `BEGIN USER NKEY SEED`"))?;
            let key = UserKey::from_seed(seed).map_err(|why| wrong("credentials", why))?;
            return Ok(Self::Credentials {
                jwt: Secret::new(jwt),
                key,
            });
        }
        if let Some(seed) = &settings.nkey_seed {
            let key = UserKey::from_seed(seed.expose()).map_err(|why| wrong("nkeySeed", why))?;
            return Ok(Self::Key(key));
        }
        Ok(
            match (&settings.broker.user, &settings.broker.password, &settings.token) {
                (Some(user), Some(password), _) => Self::Password {
                    user: user.clone(),
                    password: password.clone(),
                },
                (_, _, Some(token)) => Self::Token(token.clone()),
                _ => Self::Nobody,
            },
        )
    }

    /// The document of CONNECT.
    ///
    /// # Errors
    /// Where the server asks for no signature and one is all that we have.
    pub(super) fn hello(&self, info: &Info, with_tls: bool) -> Result<Secret, String> {
        let mut hello = json!({
            "verbose": false, "pedantic": false, "echo": false, "headers": true, "no_responders": true, "protocol": 1,
            "lang": "rust", "name": "holm", "version": env!("CARGO_PKG_VERSION"), "tls_required": with_tls,
        });
        let mut say = |name: &str, value: Value| {
            if let Value::Object(members) = &mut hello {
                members.insert(name.to_owned(), value);
            }
        };
        match self {
            Self::Nobody => {}
            Self::Password { user, password } => {
                say("user", json!(user));
                say("pass", json!(password.expose()));
            }
            Self::Token(token) => say("auth_token", json!(token.expose())),
            Self::Key(key) => {
                say("nkey", json!(key.public()));
                say("sig", json!(signature(key, info)?));
            }
            Self::Credentials { jwt, key } => {
                say("jwt", json!(jwt.expose()));
                say("sig", json!(signature(key, info)?));
            }
        }
        Ok(Secret::new(hello.to_string()))
    }
}

fn signature(key: &UserKey, info: &Info) -> Result<String, String> {
    if info.nonce.is_empty() {
        return Err("the server asks for no signature: it knows no nkeys or credentials; log in otherwise".to_owned());
    }
    Ok(URL_SAFE_NO_PAD.encode(key.sign(&info.nonce)))
}

/// What stands behind `-----BEGIN {name}-----`.
fn section<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = text.lines().map(str::trim);
    lines.find(|line| line.starts_with("---") && line.contains(&format!("BEGIN {name}")))?;
    lines
        .find(|line| !line.is_empty())
        .filter(|line| !line.starts_with("---"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_of_a_credentials_file_are_found() {
        let text = "-----BEGIN NATS USER JWT-----\r\neyJ0.a.b\r\n------END NATS USER JWT------\r\n\r\n*** IMPORTANT ***\n\
                    -----BEGIN USER NKEY SEED-----\n\nSUA\n------END USER NKEY SEED------\n";

        assert_eq!(section(text, "NATS USER JWT"), Some("eyJ0.a.b"));
        assert_eq!(section(text, "USER NKEY SEED"), Some("SUA"));
        assert_eq!(section("-----BEGIN USER NKEY SEED-----\n----", "USER NKEY SEED"), None);
        assert_eq!(section("", "USER NKEY SEED"), None);
    }
}
