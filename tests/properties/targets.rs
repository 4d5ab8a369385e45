//! A second implementation of the canonical forms of paths and hosts.

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;

/// Paths, of which about half are canonical.
fn targets() -> impl Strategy<Value = String> {
    let segments = &[
        "a", "v1", "~x", ".", "..", "...", ".a", "", "a;b", "..;a", ".;", "%2E", "%2e%2E", "%61",
        "%2F", "%5c", "%00", "%20", "%c3%A9", "%", "%4", "%zz", "a b", "a\\b", "a%3Bb", "%2e;x",
        "..%3ba", "\u{e9}", "a#b", "*",
    ][..];
    let usual = prop_oneof![3 => select(&["a", "v1", "%20", "a.b"][..]), 1 => select(segments)];
    let paths = (vec(usual, 0..4), any::<bool>(), select(&["", "", "?a=//../%2e", "?"][..]));
    let paths = paths.prop_map(|(segments, slash, query)| {
        let end = if slash { "/" } else { "" };
        format!("/{}{end}{query}", segments.join("/"))
    });
    prop_oneof![paths, "/[a-c./%2eE;~?]{0,24}", "[/a.%2eE]{0,6}"]
}

/// The path of a target that is canonical already, with escapes in upper case: normalising a segment (RFC
/// 3986, section 6.2.2) changes nothing, and no segment is ambiguous.
fn canonical_path(target: &str) -> Option<String> {
    let path = target.split('?').next()?;
    let segments: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
    let last = segments.len() - 1;
    let normal = segments.iter().enumerate().map(|(index, segment)| {
        let (decoded, upper) = normal_segment(segment)?;
        // Servers that support path parameters resolve `..;a` like `..`.
        let parameters = upper.replace("%3B", ";");
        let resolved = matches!(parameters.split(';').next()?, "." | "..");
        let missing = segment.is_empty() && index != last;
        (decoded == upper && !resolved && !missing).then_some(upper)
    });
    let normal = normal.collect::<Option<Vec<_>>>()?;
    (!target.contains('#')).then(|| format!("/{}", normal.join("/")))
}

/// A segment with its unreserved characters decoded, and the segment with only its escapes in upper case.
/// `None` if it has other characters than visible ASCII, an invalid escape, or an escape of a character
/// that some servers treat as the end of a segment or path.
fn normal_segment(segment: &str) -> Option<(String, String)> {
    let (mut decoded, mut upper) = (String::new(), String::new());
    let mut rest = segment.chars();
    while let Some(c) = rest.next() {
        if !c.is_ascii_graphic() || c == '\\' {
            return None;
        }
        if c != '%' {
            decoded.push(c);
            upper.push(c);
            continue;
        }
        let (high, low) = (rest.next()?.to_digit(16)?, rest.next()?.to_digit(16)?);
        let byte = char::from(u8::try_from(high * 16 + low).unwrap());
        if matches!(byte, '/' | '\\' | '\0') {
            return None;
        }
        let escape = format!("%{:02X}", u32::from(byte));
        upper.push_str(&escape);
        match byte.is_ascii_alphanumeric() || "-._~".contains(byte) {
            true => decoded.push(byte),
            false => decoded.push_str(&escape),
        }
    }
    Some((decoded, upper))
}

/// Authorities, of which about half are canonical.
fn authorities() -> impl Strategy<Value = String> {
    let hosts = &[
        "gw.example", "a_b.example", "10.0.0.1", "[2001:db8::1]", "localhost", "GW.example",
        "[2001:DB8::1]", "a..b", "", ".", ".a", "a%2eb", "u@a", "[::1", "::1",
    ][..];
    let ends = &["", "", "", "", ".", ":443", ".:443", ":", ":0", ":65536", ":000080", ":x"][..];
    let usual = (select(hosts), select(ends)).prop_map(|(host, end)| format!("{host}{end}"));
    prop_oneof![usual, "[a-zA-C0-2.:@_\\[\\]-]{0,12}"]
}

/// Whether an authority is exactly a lower-case name without a final dot, or something in brackets, whose
/// content is not checked.
fn is_lower(authority: &str) -> bool {
    let of = |text: &str, more: &str| {
        text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || more.contains(c))
    };
    match authority.strip_prefix('[') {
        Some(literal) => literal.strip_suffix(']').is_some_and(|literal| of(literal, ":.[]")),
        None => of(authority, ".-_") && authority.split('.').all(|label| !label.is_empty()),
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn exactly_the_canonical_paths_are_accepted(target in targets()) {
        let path = CanonicalPath::parse(target.as_bytes()).ok();
        let canonical = canonical_path(&target);
        prop_assert_eq!(path.as_ref().map(CanonicalPath::as_str), canonical.as_deref(), "{}", target);
        let Some(path) = path else { return Ok(()) };
        let again = CanonicalPath::parse(path.as_str().as_bytes()).unwrap();
        prop_assert_eq!(&again, &path);
        let sent = target.split('?').next().unwrap();
        prop_assert!(sent.eq_ignore_ascii_case(path.as_str()));
        let resource = CanonicalPath::parse(path.resource().as_bytes()).unwrap();
        prop_assert_eq!(resource.resource(), path.resource());
        let rest = path.as_str().strip_prefix(path.resource()).unwrap();
        prop_assert!(rest.is_empty() || rest == "/");
    }

    #[test]
    fn an_exact_host_is_in_canonical_form(authority in authorities()) {
        let exact = exact_host(authority.as_bytes());
        prop_assert!(exact.is_none() || is_lower(&authority), "{}", authority);
        prop_assert!(exact.is_none() || exact == Some(&authority));
        let address = authority.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let address = address.is_some_and(|literal| literal.parse::<Ipv6Addr>().is_ok());
        if is_lower(&authority) && (address || !authority.starts_with('[')) {
            prop_assert_eq!(exact, Some(&*authority));
        }
    }
}
