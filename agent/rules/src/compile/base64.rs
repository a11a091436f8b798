//! Standard base64 (RFC 4648, section 4), as `directResponse.body.bytes` has it.

/// Decodes; padding may be missing. `None`: not base64.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    let mut pending = 0u32;
    let mut bits = 0;
    for byte in text.trim_end_matches('=').bytes().filter(|byte| !byte.is_ascii_whitespace()) {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        pending = pending << 6 | u32::from(value);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((pending >> bits & 0xff) as u8);
        }
    }
    (bits < 6).then_some(bytes)
}

#[cfg(test)]
mod tests {
    #[test]
    fn decodes_with_and_without_padding() {
        let decoded = |text: &str| super::decode(text).map(|bytes| String::from_utf8(bytes).unwrap());
        assert_eq!(decoded("aGVsbG8=").as_deref(), Some("hello"));
        assert_eq!(decoded("aGVsbG8").as_deref(), Some("hello"));
        assert_eq!(decoded("").as_deref(), Some(""));
        assert_eq!(decoded("a"), None);
        assert_eq!(decoded("a$=="), None);
    }
}
