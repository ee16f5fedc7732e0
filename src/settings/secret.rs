//! A value that must not show.

use std::fmt;

/// A secret: what is printed of it are dots. Only the door that needs it calls [`Secret::expose`].
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a value, without the blanks and line ends around it.
    pub fn new(value: &str) -> Secret {
        Secret(value.trim().to_owned())
    }

    /// The value itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("••••")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("••••")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_shows_as_dots() {
        let secret = Secret::new(" glpat-abc\n");
        assert_eq!(format!("{secret} {secret:?} {:?}", Some(&secret)), "•••• •••• Some(••••)");
        assert_eq!(secret.expose(), "glpat-abc");
    }
}
