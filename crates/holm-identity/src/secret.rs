//! Text that must not be seen: it does not print, and its memory is wiped when it is dropped.

use std::fmt;

use zeroize::Zeroizing;

/// A secret text: a connection string, a token, a private key in PEM.
///
/// `Debug` shows only that there is one, and there is no `Display`: whoever needs the text says so with
/// [`Secret::expose`], which is easy to find in a review.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Wraps a text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_print() {
        let secret = Secret::new("hunter2");

        let shown = format!("{secret:?} {:#?}", Some(&secret));

        assert!(!shown.contains("hunter2"), "{shown}");
        assert_eq!(secret.expose(), "hunter2");
    }
}
