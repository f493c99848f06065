//! Request targets (RFC 9112 section 3.2) and hosts (RFC 9110 section 7.2), checked and cut
//! into pieces. Nothing is decoded, and dot segments stay: the route lookup refuses them.

use super::class::{self, PATH, QUERY, REG_NAME};

/// Pieces of a request target, as offsets into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) form: TargetForm,
    /// `host[:port]` of the absolute form.
    pub(crate) host: Option<(usize, usize)>,
    /// Empty where the absolute form has none; that means `/`.
    pub(crate) path: (usize, usize),
    /// Without the `?`; `None` where there is no `?`.
    pub(crate) query: Option<(usize, usize)>,
}

/// Which of the target forms a request used. The authority form belongs to CONNECT and is refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TargetForm {
    /// `/path?query`.
    #[default]
    Origin,
    /// `http://host/path?query`. The host of the target counts, that of the `Host` field does not.
    Absolute,
    /// `*`, for OPTIONS.
    Asterisk,
}

/// Cuts `target` into pieces, or `None` if it is none of the three forms.
pub(crate) fn cut(target: &[u8]) -> Option<Target> {
    if target == b"*" {
        let path = (0, 1);
        return Some(Target { form: TargetForm::Asterisk, host: None, path, query: None });
    }
    let (form, host, path_start) = if target.first() == Some(&b'/') {
        (TargetForm::Origin, None, 0)
    } else {
        let scheme_len = [b"http://".as_slice(), b"https://"]
            .iter()
            .find(|scheme| target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)))?
            .len();
        let rest = &target[scheme_len..];
        let authority_len = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
        let authority = &rest[..authority_len];
        let host_start = match memchr::memrchr(b'@', authority) {
            Some(at) if is_user_info(&authority[..at]) => at + 1,
            Some(_) => return None,
            None => 0,
        };
        if !is_host(&authority[host_start..]) {
            return None;
        }
        let end = scheme_len + authority_len;
        (TargetForm::Absolute, Some((scheme_len + host_start, end)), end)
    };
    let path_end = memchr::memchr(b'?', &target[path_start..]).map_or(target.len(), |at| path_start + at);
    let path = &target[path_start..path_end];
    let query = target.get(path_end + 1..).map(|query| (path_end + 1, path_end + 1 + query.len()));
    let query_is_sound = query.is_none_or(|(start, end)| {
        class::all(&target[start..end], QUERY) && class::escapes_are_whole(&target[start..end])
    });
    let is_sound = class::all(path, PATH) && class::escapes_are_whole(path) && query_is_sound;
    is_sound.then_some(Target { form, host, path: (path_start, path_end), query })
}

fn is_user_info(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| class::is(byte, REG_NAME) || matches!(byte, b':' | b','))
        && class::escapes_are_whole(bytes)
}

/// `uri-host [ ":" port ]` with a host that is not empty.
pub(crate) fn is_host(bytes: &[u8]) -> bool {
    let (host_is_sound, after) = if bytes.first() == Some(&b'[') {
        let Some(end) = memchr::memchr(b']', bytes) else {
            return false;
        };
        let address = std::str::from_utf8(&bytes[1..end]).ok();
        let is_ipv6 = address.is_some_and(|text| text.parse::<std::net::Ipv6Addr>().is_ok());
        (is_ipv6, &bytes[end + 1..])
    } else {
        let end = memchr::memchr(b':', bytes).unwrap_or(bytes.len());
        let name = &bytes[..end];
        let is_name = !name.is_empty() && class::all(name, REG_NAME) && class::escapes_are_whole(name);
        (is_name, &bytes[end..])
    };
    host_is_sound && after.strip_prefix(b":").map_or(after.is_empty(), is_port)
}

/// RFC 3986 lets a port be empty.
fn is_port(bytes: &[u8]) -> bool {
    bytes.len() <= 5
        && bytes.iter().all(u8::is_ascii_digit)
        && bytes.iter().fold(0u32, |port, digit| port * 10 + u32::from(digit - b'0')) <= 65_535
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_that_are_hosts() {
        for host in ["a", "a:80", "a:", "127.0.0.1:8080", "[::1]", "[::1]:8080", "0.0.0.0=5000", "a_b.c", "a%20b"] {
            assert!(is_host(host.as_bytes()), "{host}");
        }
        for host in [
            "",
            ":80",
            "a:b",
            "a:65536",
            "a:123456",
            "a b",
            "a,b",
            "a/b",
            "u@a",
            "[::1",
            "[]",
            "[::g]",
            "[v1.a]",
            "::1",
            "a%2",
            "a\\b",
            "a#",
            "[::1]x",
            "[::1%25eth0]",
            "\u{e9}",
        ] {
            assert!(!is_host(host.as_bytes()), "{host}");
        }
    }

    #[test]
    fn targets_are_cut_at_the_first_question_mark() {
        let target = cut(b"http://u:p@h.example:1?a?b").unwrap();
        assert_eq!((target.form, target.host), (TargetForm::Absolute, Some((11, 22))));
        assert_eq!((target.path, target.query), ((22, 22), Some((23, 26))));
        let target = cut(b"/a//b?").unwrap();
        assert_eq!((target.form, target.path, target.query), (TargetForm::Origin, (0, 5), Some((6, 6))));
    }

    #[test]
    fn what_is_no_target() {
        for target in [
            "",
            "foo/bar",
            "example.com:443",
            "**",
            "*x",
            "ftp://a/",
            "http://",
            "http:///a",
            "http:/a",
            "/a#b",
            "/a b",
            "/%",
            "/%2",
            "/%zz",
            "/a\"",
            "/a<",
            "/a\\b",
            "/a|",
            "/[",
            "/?a=%",
            "/?|",
            "http://a@b@c/",
            "http://a:b:c/",
            "//\u{7f}",
            "http://[::1/",
        ] {
            assert_eq!(cut(target.as_bytes()), None, "{target}");
        }
        for target in ["/", "*", "//a", "/?a[]=1", "/\u{e9}", "/a;b=c,d:@!$&'()*+~", "HTTP://a", "/..%2f"] {
            assert!(cut(target.as_bytes()).is_some(), "{target}");
        }
    }
}
