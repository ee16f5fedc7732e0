//! Secrets never show: the values of `--test-env NAME` are masked in every report.

use std::borrow::Cow;

/// What stands where a secret stood.
pub const MASK: &str = "[masked]";

/// Shorter values are not masked: a value such as `1` is no secret, and masking it would garble every report.
const SHORTEST: usize = 4;

/// The values that must not show.
#[derive(Clone, Default)]
pub struct Masks {
    secrets: Vec<String>,
}

impl std::fmt::Debug for Masks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Masks({} secrets)", self.secrets.len())
    }
}

impl Masks {
    /// Masks these values, each also line by line; values shorter than four bytes are left out.
    pub fn new<S: AsRef<str>>(values: impl IntoIterator<Item = S>) -> Masks {
        let mut secrets: Vec<String> = Vec::new();
        for value in values {
            let value = value.as_ref();
            secrets.push(value.trim().to_owned());
            secrets.extend(value.lines().map(|line| line.trim().to_owned()));
        }
        secrets.retain(|secret| secret.len() >= SHORTEST);
        // The longest first, so that no rest of a longer one stays.
        secrets.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        secrets.dedup();
        Masks { secrets }
    }

    /// The text without any of them.
    pub fn mask<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut text = Cow::Borrowed(text);
        for secret in &self.secrets {
            if text.contains(secret.as_str()) {
                text = Cow::Owned(text.replace(secret.as_str(), MASK));
            }
        }
        text
    }

    /// The bytes without any of them.
    pub fn mask_bytes(&self, bytes: &[u8]) -> Vec<u8> {
        let mut masked = bytes.to_vec();
        for secret in self.secrets.iter().map(String::as_bytes) {
            let mut from = 0;
            while let Some(at) = masked[from..].windows(secret.len()).position(|window| window == secret) {
                masked.splice(from + at..from + at + secret.len(), MASK.bytes());
                from += at + MASK.len();
            }
        }
        masked
    }

    /// The value with every text in it masked, but for those below the keys in `spared`.
    pub fn mask_json(&self, value: serde_json::Value, spared: &[&str]) -> serde_json::Value {
        use serde_json::Value;
        match value {
            Value::String(text) => Value::String(self.mask(&text).into_owned()),
            Value::Array(values) => values.into_iter().map(|value| self.mask_json(value, spared)).collect(),
            Value::Object(fields) => Value::Object(
                fields
                    .into_iter()
                    .map(|(key, value)| match spared.contains(&key.as_str()) {
                        true => (key, value),
                        false => (self.mask(&key).into_owned(), self.mask_json(value, spared)),
                    })
                    .collect(),
            ),
            other => other,
        }
    }

    /// Whether there is nothing to mask.
    pub fn is_empty(&self) -> bool {
        self.secrets.is_empty()
    }

    /// Bytes of the longest one.
    pub fn longest(&self) -> usize {
        self.secrets.first().map_or(0, String::len)
    }
}

/// The text without any of the secrets, for a caller with a list at hand.
pub fn mask<'t>(text: &'t str, secrets: &[String]) -> Cow<'t, str> {
    Cow::Owned(Masks::new(secrets).mask(text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longer_secrets_go_first_and_short_ones_stay() {
        let masks = Masks::new(["hunter", "hunter22", "1", ""]);
        assert_eq!(masks.mask("hunter22 and hunter, 1"), "[masked] and [masked], 1");
        assert_eq!(format!("{masks:?}"), "Masks(2 secrets)");
    }

    #[test]
    fn bytes_and_json_are_masked_too() {
        let masks = Masks::new(["hunter22"]);
        assert_eq!(masks.mask_bytes(b"\xff hunter22hunter22."), b"\xff [masked][masked].");
        let value = serde_json::json!({"cell": "hunter22", "a": ["x hunter22", 7]});
        let masked = serde_json::json!({"cell": "hunter22", "a": ["x [masked]", 7]});
        assert_eq!(masks.mask_json(value, &["cell"]), masked);
    }

    #[test]
    fn a_key_of_many_lines_is_masked_line_by_line() {
        let secrets = ["-----BEGIN-----\nc2VjcmV0\n-----END-----\n".to_owned()];
        assert_eq!(mask("log: c2VjcmV0", &secrets), "log: [masked]");
        assert_eq!(mask("-----BEGIN-----\nc2VjcmV0\n-----END-----", &secrets), "[masked]");
    }
}
