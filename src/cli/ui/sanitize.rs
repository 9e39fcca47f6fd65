//! Names and texts from elsewhere, made harmless for a terminal.
//!
//! A control character could move the cursor, change colours or type for the person; a bidirectional one could make
//! a name look like another. On a terminal they are shown as escapes. Pipes get the raw bytes: see [`super::Ui`].

use std::borrow::Cow;

/// The text as a terminal may show it: `\t`, `\n`, `\u{202e}`, `\xff` stand for what must not reach it.
pub(crate) fn sanitize(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(is_dangerous) => Cow::Borrowed(text),
        _ => {
            let mut shown = String::with_capacity(bytes.len() + 8);
            for chunk in bytes.utf8_chunks() {
                for c in chunk.valid().chars() {
                    match c {
                        '\t' => shown.push_str("\\t"),
                        '\n' => shown.push_str("\\n"),
                        '\r' => shown.push_str("\\r"),
                        c if is_dangerous(c) => shown.extend(c.escape_unicode()),
                        c => shown.push(c),
                    }
                }
                chunk.invalid().iter().for_each(|byte| shown.push_str(&format!("\\x{byte:02x}")));
            }
            Cow::Owned(shown)
        }
    }
}

/// Control characters, and those that change the direction or the joining of others, or cannot be seen at all.
fn is_dangerous(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{061c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    #[rstest]
    #[case(b"notes.txt", "notes.txt")]
    #[case("Übersicht 写真".as_bytes(), "Übersicht 写真")]
    #[case(b"red\x1b[31m", "red\\u{1b}[31m")]
    #[case(b"two\nlines\t", "two\\nlines\\t")]
    #[case("cod\u{202e}gpj.exe".as_bytes(), "cod\\u{202e}gpj.exe")]
    #[case("\u{9b}31m".as_bytes(), "\\u{9b}31m")]
    #[case(b"\xff\xfe", "\\xff\\xfe")]
    fn shows_what_is_dangerous_as_an_escape(#[case] name: &[u8], #[case] shown: &str) {
        assert_eq!(sanitize(name), shown);
    }

    proptest! {
        #[test]
        fn nothing_dangerous_comes_through(bytes: Vec<u8>) {
            prop_assert!(!sanitize(&bytes).chars().any(is_dangerous));
        }
    }
}
