//! The fields this node knows, one line each: which they are and what may happen to them.
//!
//! A field that is not in the table is [`Known::Other`] and relayed as it is, unless
//! `Connection` names it. Values are not looked at here.

/// What the table says of a field; both directions in one set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags(u16);

impl Flags {
    /// Nothing special.
    pub const NONE: Self = Self(0);
    /// For one connection only (RFC 9110 section 7.6.1); never relayed in either direction.
    pub const HOP: Self = Self(1);
    /// Written by [`super::HeadWriter`] from typed values (`host`, framing, `expect`); never copied.
    pub const REWRITTEN: Self = Self(1 << 1);
    /// A client's credential. Never goes to a provider.
    pub const CREDENTIAL: Self = Self(1 << 2);
    /// Said to or by the gateway itself. Crosses it in neither direction.
    pub const GATEWAY: Self = Self(1 << 3);
    /// Tells of the path a request took. Never goes to a provider.
    pub const FORWARDED: Self = Self(1 << 4);
    /// May stand once; twice would let two readers see two values.
    pub const SINGLETON: Self = Self(1 << 5);
    /// Never goes from a provider to a client: cookies, account ids, claims about our origin.
    pub const NOT_FROM_PROVIDER: Self = Self(1 << 6);
    /// A provider's rate-limit state; the caller relays it under another name, if at all.
    pub const RATE_LIMIT: Self = Self(1 << 7);
    /// Selects an account at the provider; the client must not, the key decides.
    pub const ACCOUNT: Self = Self(1 << 8);
    /// Harmful as a trailer (RFC 9110 section 6.5.1): framing, routing, credentials, controls.
    pub const NOT_IN_TRAILERS: Self = Self(1 << 9);

    const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether any of `other` is set.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

macro_rules! known_fields {
    ($($(#[$doc:meta])* $variant:ident $name:literal $($flag:ident)*;)*) => {
        /// A field by its name. The discriminant is the field's line in the table.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        #[allow(missing_docs, reason = "each variant is the field of that name")]
        pub enum Known { $($(#[$doc])* $variant),* }

        const TABLE: &[(Known, &str, Flags)] = &[
            $((Known::$variant, $name, Flags::NONE$(.and(Flags::$flag))*)),*
        ];

        /// How the line of a field begins, so that it is copied as one.
        const LINE_STARTS: &[&str] = &[$(concat!($name, ": ")),*];
    };
}

known_fields! {
    // Families and fallbacks first; their "names" hold a byte that no field name may have.
    /// Not in the table.
    Other ":other";
    /// With `-` for `_` it would be a field of this table that is not relayed. Some servers
    /// read `Content_Length` and `Content-Length` as one, so it is dropped.
    LookAlike ":look-alike" HOP NOT_IN_TRAILERS;
    /// `x-bf-eh-NAME`: the client asks for an extra field at the provider.
    ExtraField ":x-bf-eh-" GATEWAY NOT_IN_TRAILERS;
    /// Other `x-bf-` and `x-bifrost-` fields.
    GatewayOther ":x-bf-" GATEWAY NOT_FROM_PROVIDER NOT_IN_TRAILERS;
    /// Other `x-forwarded-` fields.
    ForwardedOther ":x-forwarded-" FORWARDED NOT_FROM_PROVIDER NOT_IN_TRAILERS;
    /// `x-ratelimit-`, `ratelimit-` and `anthropic-ratelimit-` fields.
    RateLimit ":x-ratelimit-" RATE_LIMIT NOT_FROM_PROVIDER NOT_IN_TRAILERS;
    /// `access-control-` fields of an answer: the gateway answers CORS itself.
    AccessControl ":access-control-" NOT_FROM_PROVIDER NOT_IN_TRAILERS;
    /// `proxy-` fields, known or not.
    ProxyOther ":proxy-" HOP NOT_IN_TRAILERS;

    // Framing and routing.
    Host "host" REWRITTEN SINGLETON NOT_FROM_PROVIDER NOT_IN_TRAILERS;
    ContentLength "content-length" REWRITTEN SINGLETON NOT_IN_TRAILERS;
    TransferEncoding "transfer-encoding" HOP REWRITTEN SINGLETON NOT_IN_TRAILERS;
    Connection "connection" HOP NOT_IN_TRAILERS;
    KeepAlive "keep-alive" HOP NOT_IN_TRAILERS;
    ProxyConnection "proxy-connection" HOP NOT_IN_TRAILERS;
    Te "te" HOP NOT_IN_TRAILERS;
    Trailer "trailer" HOP NOT_IN_TRAILERS;
    Upgrade "upgrade" HOP NOT_IN_TRAILERS;
    Http2Settings "http2-settings" HOP NOT_IN_TRAILERS;
    Expect "expect" HOP REWRITTEN SINGLETON NOT_IN_TRAILERS;
    MaxForwards "max-forwards" HOP SINGLETON NOT_IN_TRAILERS;

    // Credentials.
    Authorization "authorization" CREDENTIAL SINGLETON NOT_FROM_PROVIDER NOT_IN_TRAILERS;
    ProxyAuthorization "proxy-authorization" HOP CREDENTIAL SINGLETON NOT_IN_TRAILERS;
    ProxyAuthenticate "proxy-authenticate" HOP NOT_IN_TRAILERS;
    ProxyAuthenticationInfo "proxy-authentication-info" HOP NOT_IN_TRAILERS;
    Cookie "cookie" CREDENTIAL NOT_FROM_PROVIDER NOT_IN_TRAILERS;
    XApiKey "x-api-key" CREDENTIAL SINGLETON NOT_FROM_PROVIDER NOT_IN_TRAILERS;
    ApiKey "api-key" CREDENTIAL SINGLETON NOT_FROM_PROVIDER NOT_IN_TRAILERS;
    XGoogApiKey "x-goog-api-key" CREDENTIAL SINGLETON NOT_FROM_PROVIDER NOT_IN_TRAILERS;
    XAmzSecurityToken "x-amz-security-token" CREDENTIAL SINGLETON NOT_FROM_PROVIDER NOT_IN_TRAILERS;
    WwwAuthenticate "www-authenticate" NOT_FROM_PROVIDER NOT_IN_TRAILERS;

    // Said to the gateway.
    VirtualKey "x-bf-vk" GATEWAY CREDENTIAL SINGLETON NOT_FROM_PROVIDER NOT_IN_TRAILERS;
    KeyName "x-bf-api-key" GATEWAY SINGLETON NOT_FROM_PROVIDER NOT_IN_TRAILERS;
    SessionId "x-bf-session-id" GATEWAY SINGLETON NOT_FROM_PROVIDER NOT_IN_TRAILERS;
    RequestId "x-request-id" NOT_IN_TRAILERS;

    // Where a request came from.
    Forwarded "forwarded" FORWARDED NOT_FROM_PROVIDER NOT_IN_TRAILERS;
    Via "via" FORWARDED NOT_FROM_PROVIDER NOT_IN_TRAILERS;
    XRealIp "x-real-ip" FORWARDED NOT_FROM_PROVIDER NOT_IN_TRAILERS;
    XClientIp "x-client-ip" FORWARDED NOT_FROM_PROVIDER NOT_IN_TRAILERS;
    XClusterClientIp "x-cluster-client-ip" FORWARDED NOT_FROM_PROVIDER NOT_IN_TRAILERS;
    XOriginalUrl "x-original-url" FORWARDED NOT_FROM_PROVIDER NOT_IN_TRAILERS;
    XRewriteUrl "x-rewrite-url" FORWARDED NOT_FROM_PROVIDER NOT_IN_TRAILERS;
    XHttpMethodOverride "x-http-method-override" FORWARDED NOT_FROM_PROVIDER NOT_IN_TRAILERS;
    TrueClientIp "true-client-ip" FORWARDED NOT_FROM_PROVIDER NOT_IN_TRAILERS;
    CfConnectingIp "cf-connecting-ip" FORWARDED NOT_FROM_PROVIDER NOT_IN_TRAILERS;

    // Accounts at providers.
    OpenAiOrganization "openai-organization" ACCOUNT NOT_FROM_PROVIDER NOT_IN_TRAILERS;
    OpenAiProject "openai-project" ACCOUNT NOT_FROM_PROVIDER NOT_IN_TRAILERS;
    AnthropicOrganizationId "anthropic-organization-id" ACCOUNT NOT_FROM_PROVIDER NOT_IN_TRAILERS;
    XGoogUserProject "x-goog-user-project" ACCOUNT NOT_FROM_PROVIDER NOT_IN_TRAILERS;

    // What an answer must not tell a client about our origin.
    SetCookie "set-cookie" NOT_FROM_PROVIDER NOT_IN_TRAILERS;
    SetCookie2 "set-cookie2" NOT_FROM_PROVIDER NOT_IN_TRAILERS;
    AltSvc "alt-svc" NOT_FROM_PROVIDER NOT_IN_TRAILERS;
    ClearSiteData "clear-site-data" NOT_FROM_PROVIDER NOT_IN_TRAILERS;
    Nel "nel" NOT_FROM_PROVIDER NOT_IN_TRAILERS;
    ReportTo "report-to" NOT_FROM_PROVIDER NOT_IN_TRAILERS;
    ReportingEndpoints "reporting-endpoints" NOT_FROM_PROVIDER NOT_IN_TRAILERS;
    PublicKeyPins "public-key-pins" NOT_FROM_PROVIDER NOT_IN_TRAILERS;
    StrictTransportSecurity "strict-transport-security" NOT_FROM_PROVIDER NOT_IN_TRAILERS;
    AuthenticationInfo "authentication-info" NOT_FROM_PROVIDER NOT_IN_TRAILERS;

    // Looked at on the way, relayed as they are.
    ContentType "content-type" SINGLETON;
    ContentEncoding "content-encoding" NOT_IN_TRAILERS;
    ContentRange "content-range" SINGLETON NOT_IN_TRAILERS;
    Range "range" SINGLETON NOT_IN_TRAILERS;
    CacheControl "cache-control" NOT_IN_TRAILERS;
    Pragma "pragma" NOT_IN_TRAILERS;
    Accept "accept";
    AcceptEncoding "accept-encoding" NOT_IN_TRAILERS;
    UserAgent "user-agent";
    Origin "origin" SINGLETON NOT_IN_TRAILERS;
    RetryAfter "retry-after" SINGLETON NOT_IN_TRAILERS;
    Location "location" SINGLETON NOT_IN_TRAILERS;
    Date "date" NOT_IN_TRAILERS;
    Server "server";
    AnthropicVersion "anthropic-version";
    AnthropicBeta "anthropic-beta";
    ServerTiming "server-timing";
}

/// Families and fallbacks come first.
const _: () = {
    let mut line = 0;
    while line < TABLE.len() {
        assert!((TABLE[line].1.as_bytes()[0] == b':') == (line < Known::Host as usize));
        line += 1;
    }
};

const PREFIXES: &[(&[u8], Known)] = &[
    (b"x-bf-eh-", Known::ExtraField),
    (b"x-bf-", Known::GatewayOther),
    (b"x-bifrost-", Known::GatewayOther),
    (b"x-forwarded-", Known::ForwardedOther),
    (b"x-ratelimit-", Known::RateLimit),
    (b"ratelimit-", Known::RateLimit),
    (b"anthropic-ratelimit-", Known::RateLimit),
    (b"access-control-", Known::AccessControl),
    (b"proxy-", Known::ProxyOther),
];

impl Known {
    /// The field of this name, in any case of letters.
    pub fn classify(name: &[u8]) -> Self {
        let known = exact_or_family(name);
        if known != Self::Other || !name.contains(&b'_') {
            return known;
        }
        // Longer than any name or prefix of the table cannot resemble a single field of it,
        // and a family shows in its first bytes.
        let mut dashed = [0u8; LOOK_ALIKE_BYTES];
        let len = name.len().min(dashed.len());
        for (to, from) in dashed.iter_mut().zip(name) {
            *to = if *from == b'_' { b'-' } else { *from };
        }
        let resembles = exact_or_family(dashed.get(..len).unwrap_or_default());
        if resembles.relays_to_provider() && resembles.relays_to_client() { Self::Other } else { Self::LookAlike }
    }

    /// What the table says of it.
    pub fn flags(self) -> Flags {
        TABLE[self as usize].2
    }

    /// Lower-case name, or `None` for families and [`Self::Other`], whose name the head holds.
    pub fn name(self) -> Option<&'static str> {
        (self >= Self::Host).then(|| TABLE[self as usize].1)
    }

    /// The same with the colon and the space that follow it.
    #[inline]
    pub(super) fn line_start(self) -> Option<&'static str> {
        (self >= Self::Host).then(|| LINE_STARTS[self as usize])
    }

    /// Whether the table lets it go from a client to a provider.
    pub fn relays_to_provider(self) -> bool {
        const STAYS: Flags = Flags::HOP
            .and(Flags::REWRITTEN)
            .and(Flags::CREDENTIAL)
            .and(Flags::GATEWAY)
            .and(Flags::FORWARDED)
            .and(Flags::ACCOUNT);
        !self.flags().has(STAYS)
    }

    /// Whether the table lets it go from a provider to a client.
    pub fn relays_to_client(self) -> bool {
        const STAYS: Flags = Flags::HOP.and(Flags::REWRITTEN).and(Flags::GATEWAY).and(Flags::NOT_FROM_PROVIDER);
        !self.flags().has(STAYS)
    }
}

/// Longer than every name of the table plus one, so that a longer look-alike stays different.
const LOOK_ALIKE_BYTES: usize = 48;

const NAME_BYTES_MAX: usize = LOOK_ALIKE_BYTES - 1;

/// Lines of [`TABLE`] sorted by the length of the name, and where each length begins.
const BY_LENGTH: ([u8; TABLE.len()], [u8; NAME_BYTES_MAX + 2]) = by_length();

const fn by_length() -> ([u8; TABLE.len()], [u8; NAME_BYTES_MAX + 2]) {
    let mut lines = [0u8; TABLE.len()];
    let mut starts = [0u8; NAME_BYTES_MAX + 2];
    let mut filled = 0;
    let mut len = 0;
    while len <= NAME_BYTES_MAX {
        starts[len] = filled as u8;
        let mut line = 0;
        while line < TABLE.len() {
            assert!(TABLE[line].0 as usize == line);
            assert!(TABLE[line].1.len() <= NAME_BYTES_MAX);
            if TABLE[line].1.len() == len {
                lines[filled] = line as u8;
                filled += 1;
            }
            line += 1;
        }
        len += 1;
    }
    starts[NAME_BYTES_MAX + 1] = filled as u8;
    assert!(filled == TABLE.len() && filled < 256);
    (lines, starts)
}

/// What the names of [`TABLE`] begin with.
static BEGINNINGS: [u64; TABLE.len()] = {
    let mut beginnings = [0; TABLE.len()];
    let mut line = 0;
    while line < TABLE.len() {
        beginnings[line] = beginning(TABLE[line].1.as_bytes());
        line += 1;
    }
    beginnings
};

/// Up to eight bytes that a name begins with, in small letters (see [`is_same`]).
#[inline]
const fn beginning(name: &[u8]) -> u64 {
    if let Some(eight) = name.first_chunk::<8>() {
        return u64::from_le_bytes(*eight) | SMALL;
    }
    let mut begins = 0;
    let mut at = 0;
    while at < name.len() {
        begins = begins << 8 | (name[at] | 0x20) as u64;
        at += 1;
    }
    begins
}

const SMALL: u64 = 0x2020_2020_2020_2020;

/// Whether `name` is the `known` name of the same length, in any case of letters. Eight bytes at
/// once: known names have only letters, digits and dashes, and 0x20 makes letters small and leaves
/// digits and dashes what they are. What else it makes one of these is a byte below 0x20.
fn is_same(known: &[u8], name: &[u8]) -> bool {
    let is_same = |known: &[u8; 8], word: &[u8; 8]| {
        let word = u64::from_ne_bytes(*word);
        // One of the bits 0x20 and 0x40 is set in each byte that is no control byte.
        let has_control = !(word | word >> 1) & SMALL != 0;
        u64::from_ne_bytes(*known) == word | SMALL && !has_control
    };
    let (Some(known_last), Some(last)) = (known.last_chunk(), name.last_chunk()) else {
        return known.iter().zip(name).all(|(known, byte)| *known == byte | 0x20 && *byte >= 0x20);
    };
    // The last eight overlap those before.
    let (known_words, words) = (known.as_chunks().0, name.as_chunks().0);
    is_same(known_last, last) && known_words.iter().zip(words).all(|(known, word)| is_same(known, word))
}

fn exact_or_family(name: &[u8]) -> Known {
    let Some(first) = name.first().map(u8::to_ascii_lowercase) else {
        return Known::Other;
    };
    if name.len() <= NAME_BYTES_MAX {
        let (lines, starts) = &BY_LENGTH;
        let candidates = usize::from(starts[name.len()])..usize::from(starts[name.len() + 1]);
        let begins = beginning(name);
        for &line in &lines[candidates] {
            // Names of one length hardly ever begin alike.
            if BEGINNINGS[usize::from(line)] != begins {
                continue;
            }
            let (known, candidate, _) = TABLE[usize::from(line)];
            if is_same(candidate.as_bytes(), name) {
                return known;
            }
        }
    }
    if begins_family(first) {
        for (prefix, family) in PREFIXES.iter().filter(|(prefix, _)| prefix.first() == Some(&first)) {
            if name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix)) {
                return *family;
            }
        }
    }
    Known::Other
}

/// Whether a prefix of a family begins with this byte.
const fn begins_family(first: u8) -> bool {
    matches!(first, b'x' | b'a' | b'p' | b'r')
}

const _: () = {
    let mut at = 0;
    while at < PREFIXES.len() {
        assert!(begins_family(PREFIXES[at].0[0]));
        at += 1;
    }
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_the_table_is_found_in_any_case() {
        for (known, name, _) in TABLE.iter().filter(|line| !line.1.starts_with(':')) {
            assert_eq!(Known::classify(name.as_bytes()), *known, "{name}");
            assert_eq!(Known::classify(name.to_ascii_uppercase().as_bytes()), *known, "{name}");
            assert_eq!(known.name(), Some(*name));
            assert_eq!(known.line_start(), Some(format!("{name}: ").as_str()));
            assert_eq!(*name, name.to_ascii_lowercase());
        }
    }

    #[test]
    fn a_name_is_known_in_any_case_of_letters_and_with_no_other_byte() {
        for (known, name, _) in TABLE.iter().filter(|(known, ..)| known.name().is_some()) {
            assert_eq!(Known::classify(name.to_ascii_uppercase().as_bytes()), *known, "{name}");
            for at in 0..name.len() {
                for bit in [0x20, 0x40, 0x80] {
                    let mut other = name.as_bytes().to_vec();
                    other[at] ^= bit;
                    let is_same = other.eq_ignore_ascii_case(name.as_bytes());
                    assert_eq!(Known::classify(&other) == *known, is_same, "{name} with {other:?}");
                }
            }
        }
    }

    #[test]
    fn families_are_known_by_their_first_bytes() {
        for (name, known) in [
            ("X-BF-EH-Trace", Known::ExtraField),
            ("x-bf-new", Known::GatewayOther),
            ("X-Bifrost-Provider", Known::GatewayOther),
            ("X-Forwarded-For", Known::ForwardedOther),
            ("x-ratelimit-remaining-requests", Known::RateLimit),
            ("anthropic-ratelimit-tokens-reset", Known::RateLimit),
            ("Access-Control-Allow-Origin", Known::AccessControl),
            ("Proxy-Foo", Known::ProxyOther),
            ("x-bf", Known::Other),
            ("", Known::Other),
        ] {
            assert_eq!(Known::classify(name.as_bytes()), known, "{name}");
        }
    }

    #[test]
    fn an_underscore_does_not_carry_a_withheld_field_past_the_table() {
        for name in ["Content_Length", "transfer_encoding", "x_bf_vk", "X_Forwarded_For", "x_api-key"] {
            assert_eq!(Known::classify(name.as_bytes()), Known::LookAlike, "{name}");
        }
        assert_eq!(Known::classify(b"my_header"), Known::Other);
        assert_eq!(Known::classify(b"user_agent"), Known::Other);
        let long = [b"content_length".as_slice(), &[b'_'; 200]].concat();
        assert_eq!(Known::classify(&long), Known::Other);
    }

    #[test]
    fn nothing_secret_or_for_one_hop_is_relayed() {
        for name in [
            "connection",
            "te",
            "trailer",
            "upgrade",
            "transfer-encoding",
            "content-length",
            "host",
            "authorization",
            "cookie",
            "x-api-key",
            "x-goog-api-key",
            "x-bf-vk",
            "x-bf-api-key",
            "x-forwarded-for",
            "forwarded",
            "via",
            "openai-organization",
            "expect",
            "keep-alive",
        ] {
            assert!(!Known::classify(name.as_bytes()).relays_to_provider(), "{name}");
        }
        for name in [
            "connection",
            "keep-alive",
            "set-cookie",
            "alt-svc",
            "openai-organization",
            "anthropic-organization-id",
            "x-ratelimit-limit-tokens",
            "strict-transport-security",
            "proxy-authenticate",
            "content-length",
            "transfer-encoding",
            "x-bifrost-provider",
        ] {
            assert!(!Known::classify(name.as_bytes()).relays_to_client(), "{name}");
        }
        for name in ["content-type", "server-timing", "openai-processing-ms", "x-request-id", "retry-after"] {
            assert!(Known::classify(name.as_bytes()).relays_to_client(), "{name}");
        }
        for name in ["content-type", "accept", "anthropic-version", "anthropic-beta", "user-agent"] {
            assert!(Known::classify(name.as_bytes()).relays_to_provider(), "{name}");
        }
    }
}
