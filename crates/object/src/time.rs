//! Kubernetes' time texts: `metav1.Time` (seconds) and `metav1.MicroTime`.

use corten_base::Timestamp;

/// `2026-01-02T03:04:05Z`.
pub fn format(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// `2026-01-02T03:04:05.000006Z`.
pub fn format_micro(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// Any RFC 3339 text.
pub fn parse(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn texts() {
        let t = super::parse("2026-01-02T04:04:05.5+01:00").unwrap();
        assert_eq!(super::format(t), "2026-01-02T03:04:05Z");
        assert_eq!(super::format_micro(t), "2026-01-02T03:04:05.500000Z");
    }
}
