//! Words in messages: enumerations, near misses, and the masking of keys.

use super::read::Span;

/// "`a`, `b` or `c`".
pub(super) fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.map(|n| format!("`{n}`")).collect();
    match names.as_slice() {
        [] => "(none)".to_owned(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} or {last}", most.join(", ")),
    }
}

/// The name that `word` was probably meant to be.
pub(super) fn nearest<'a>(word: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    let allowed = match word.chars().count() {
        0..=2 => 1,
        3..=6 => 2,
        _ => 3,
    };
    names
        .map(|n| (distance(&word, &n.to_lowercase()), n))
        .filter(|(d, n)| *d <= allowed && *d < n.chars().count())
        .min_by_key(|(d, _)| *d)
        .map(|(_, n)| n)
}

/// Levenshtein, with a swap of neighbours counted once.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = [(0..=b.len()).map(|_| 0).collect::<Vec<usize>>(), (0..=b.len()).collect(), vec![0; b.len() + 1]];
    for i in 1..=a.len() {
        rows[2][0] = i;
        for j in 1..=b.len() {
            let differs = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[1][j] + 1).min(rows[2][j - 1] + 1).min(rows[1][j - 1] + differs);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[0][j - 2] + 1);
            }
            rows[2][j] = best;
        }
        rows.rotate_left(1);
    }
    rows[1][b.len()]
}

/// The shortest run of hex digits that is taken for a key.
const SECRET_RUN: usize = 16;

/// `text` with keys starred out, byte for byte: the values at `secrets`, and whatever looks like one. With `suspicious` (the
/// file does not parse, so nobody knows what is a value) also everything in quotes behind `key =` that is no path.
pub(super) fn mask(text: &str, secrets: &[Span], suspicious: bool) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for span in secrets {
        star(&mut bytes, span.clone());
    }
    let mut start = 0;
    for end in 0..=bytes.len() {
        if end < bytes.len() && bytes[end].is_ascii_hexdigit() {
            continue;
        }
        if end - start >= SECRET_RUN {
            star(&mut bytes, start..end);
        }
        start = end + 1;
    }
    if suspicious {
        for span in key_values(text) {
            star(&mut bytes, span);
        }
    }
    // Only whole values or ASCII runs were replaced, by ASCII: still UTF-8.
    String::from_utf8_lossy(&bytes).into_owned()
}

fn star(bytes: &mut [u8], span: Span) {
    let end = span.end.min(bytes.len());
    for b in &mut bytes[span.start.min(end)..end] {
        if !matches!(*b, b'"' | b'\'' | b'\n' | b'\r') {
            *b = b'*';
        }
    }
}

/// What stands behind `key =` to the end of its line, unless it looks like a path.
fn key_values(text: &str) -> Vec<Span> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("key") {
        let rest = &text[at + 3..];
        let Some(value) = rest.trim_start_matches(['"', '\'', ' ', '\t']).strip_prefix('=') else { continue };
        let start = text.len() - value.len();
        let line = value.split('\n').next().unwrap_or("");
        if !line.contains('/') && !line.contains(".pem") {
            found.push(start..start + line.len());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_miss_is_recognised_and_a_stranger_is_not() {
        assert_eq!(nearest("adress", ["address", "name"].into_iter()), Some("address"));
        assert_eq!(nearest("t3", ["t1", "r1"].into_iter()), Some("t1"));
        assert_eq!(nearest("nmae", ["name", "role"].into_iter()), Some("name"));
        assert_eq!(nearest("banana", ["address", "name"].into_iter()), None);
    }

    #[test]
    fn a_key_never_survives_masking_and_offsets_stay() {
        let text = "key = \"00112233445566778899aabbccddeeff\"\nname = \"x\"\n";
        let masked = mask(text, &[], false);
        assert!(!masked.contains("0011"));
        assert_eq!(masked.len(), text.len());
        assert!(masked.ends_with("name = \"x\"\n"));
        let broken = "key = \"00 11 22 33\nname = \"x\"";
        assert!(!mask(broken, &[], true).contains("22"));
        assert!(mask("key = \"/etc/k.pem\"", &[], true).contains("k.pem"));
    }
}
