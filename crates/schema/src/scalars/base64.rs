//! Standard base64 with padding, as Go's `encoding/base64.StdEncoding` reads and writes it.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

const fn reverse() -> [u8; 256] {
    let mut table = [0xff; 256];
    let mut i = 0;
    while i < 64 {
        table[ALPHABET[i] as usize] = i as u8;
        i += 1;
    }
    table
}
const VALUES: [u8; 256] = reverse();

/// Appends the text of `bytes`.
pub fn encode_to(bytes: &[u8], out: &mut String) {
    out.reserve(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let at = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for i in 0..4 {
            let symbol = ALPHABET[(bits >> (18 - 6 * i)) as usize & 63];
            out.push(if i <= chunk.len() { symbol.into() } else { '=' });
        }
    }
}

/// The text of `bytes`.
pub fn encode(bytes: &[u8]) -> String {
    let mut out = String::new();
    encode_to(bytes, &mut out);
    out
}

/// The bytes of a text; line breaks in it are skipped. The error is Go's message.
pub fn decode(text: &str) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let mut group = [0u8; 4];
    let mut filled = 0;
    let mut padding = 0;
    let illegal = |at: usize| format!("illegal base64 data at input byte {at}");
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'\r' | b'\n' => {}
            b'=' if filled >= 2 && filled + padding < 4 => padding += 1,
            _ if padding > 0 || VALUES[usize::from(byte)] == 0xff => return Err(illegal(at)),
            _ => {
                group[filled] = VALUES[usize::from(byte)];
                filled += 1;
                if filled == 4 {
                    push_group(&group, 3, &mut out);
                    filled = 0;
                }
            }
        }
        if filled > 0 && filled + padding == 4 && padding > 0 {
            push_group(&group, filled - 1, &mut out);
            filled = 0;
        }
    }
    if filled > 0 { Err(illegal(text.len() - filled - padding)) } else { Ok(out) }
}

fn push_group(group: &[u8; 4], bytes: usize, out: &mut Vec<u8>) {
    let bits = group.iter().fold(0u32, |bits, value| bits << 6 | u32::from(*value));
    out.extend_from_slice(&bits.to_be_bytes()[1..=bytes]);
}

/// Whether a text is base64 without line breaks, which decoding and encoding would not change.
pub(crate) fn is_canonical(text: &str) -> bool {
    let bytes = text.as_bytes();
    let body = text.trim_end_matches('=').len();
    if !bytes.len().is_multiple_of(4)
        || bytes.len() - body > 2
        || !bytes[..body].iter().all(|b| VALUES[usize::from(*b)] != 0xff)
    {
        return false;
    }
    // The bits that padding leaves over must be zero, or encoding again changes the last symbol.
    let left_over = match bytes.len() - body {
        1 => 0b11,
        2 => 0b1111,
        _ => 0,
    };
    body == 0 || VALUES[usize::from(bytes[body - 1])] & left_over == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")] {
            assert_eq!(encode(bytes.as_bytes()), text);
            assert_eq!(decode(text).unwrap(), bytes.as_bytes());
            assert!(is_canonical(text));
        }
        assert_eq!(decode("Zm\n9v\r\n").unwrap(), b"foo");
        assert_eq!(decode("Zm9!").unwrap_err(), "illegal base64 data at input byte 3");
        for bad in ["Zg", "Zg=", "Z===", "Zg==Zg==x", "====", "Zg==Zg=="] {
            assert!(decode(bad).is_err() || bad == "Zg==Zg==", "{bad}");
        }
        assert!(!is_canonical("Zh==") && !is_canonical("Zm\n9v"));
    }
}
