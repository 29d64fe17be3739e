//! When a token is made anew.

use std::time::Duration;

use holm_model::Timestamp;

use crate::credential::{Credential, NoToken, Token};
use crate::options::Options;

/// A token is renewed when this part of its life is over (`hub-device-protocols.md` §1.3).
const RENEW_AT_PERCENT: i64 = 85;
/// The shortest wait before a renewal, whatever the clock says.
const SHORTEST: Duration = Duration::from_millis(100);

/// The life of the token that is in use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life {
    made: Timestamp,
    expires: Timestamp,
}

impl Life {
    /// When it is to be renewed.
    pub(super) fn renewal(self, now: Timestamp) -> tokio::time::Instant {
        let life = self.expires.millis_since(self.made).max(0);
        let left = self.made.plus_millis(life / 100 * RENEW_AT_PERCENT).millis_since(now);
        tokio::time::Instant::now() + Duration::from_millis(u64::try_from(left).unwrap_or(0)).max(SHORTEST)
    }
}

impl Options {
    /// Makes a token that begins now; none for who has a certificate.
    pub(super) async fn make_token(&self) -> Result<Option<(Token, Life)>, NoToken> {
        let Credential::Tokens(source) = &self.credential else {
            return Ok(None);
        };
        let made = self.now();
        let token = source.make(made).await?;
        let expires = token.expires;
        Ok(Some((token, Life { made, expires })))
    }

    fn now(&self) -> Timestamp {
        Timestamp::from(self.clock.now())
    }

    /// When a token of that life is to be renewed; never without one.
    pub(super) fn renewal(&self, life: Option<Life>) -> Option<tokio::time::Instant> {
        life.map(|life| life.renewal(self.now()))
    }
}
