//! What a path asks for: which endpoint, in which dialect, of which provider. Nothing here looks
//! at a body or picks a key.

use crate::core::Serving;
use crate::provider::Dialect;
use std::ops::Range;

/// What kind of request it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Chat,
    Completions,
    Embeddings,
    Responses,
    Messages,
    Generate,
    CohereChat,
    /// The list of models, or one of them.
    Models,
    /// Anything else a provider answers.
    Other,
    /// A whole provider, without a model.
    Relay,
}

impl Endpoint {
    /// For metrics.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Completions => "completions",
            Self::Embeddings => "embeddings",
            Self::Responses => "responses",
            Self::Messages => "messages",
            Self::Generate => "generate",
            Self::CohereChat => "cohere_chat",
            Self::Models => "models",
            Self::Other => "other",
            Self::Relay => "relay",
        }
    }

    /// Without a model there is no route.
    pub(crate) fn needs_model(self) -> bool {
        !matches!(self, Self::Models | Self::Other | Self::Relay)
    }

    /// Its answers can be streams whose usage has to be asked for.
    pub(crate) fn asks_for_usage(self) -> bool {
        matches!(self, Self::Chat | Self::Completions)
    }

    /// It produces no output tokens.
    pub(crate) fn is_input_only(self) -> bool {
        matches!(self, Self::Embeddings)
    }
}

/// What a path asks for. Ranges point into the request head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) endpoint: Endpoint,
    /// Dialect of the bodies, and so of our errors.
    pub(crate) dialect: Dialect,
    /// Named by the path; a `provider/` in front of the model still comes first.
    pub(crate) provider: Option<usize>,
    /// Nothing of the body is changed.
    pub(crate) is_passthrough: bool,
    /// `/v1` or its like, sent upstream before the rest.
    pub(crate) version: &'static str,
    /// The path behind prefix and version.
    pub(crate) rest: Range<usize>,
    /// The model, where it stands in the path.
    pub(crate) model: Option<Range<usize>>,
}

/// Prefixes of other gateways' clients: what follows is read as if it stood alone.
const TRANSPARENT: [&str; 3] = ["/litellm", "/langchain", "/pydanticai"];

/// Prefixes with a dialect, and the provider that they mean.
const DROP_IN: [(&str, Dialect, &str, bool); 7] = [
    ("/openai_passthrough", Dialect::OpenAi, "openai", true),
    ("/openai", Dialect::OpenAi, "openai", false),
    ("/anthropic_passthrough", Dialect::Anthropic, "anthropic", true),
    ("/anthropic", Dialect::Anthropic, "anthropic", false),
    ("/genai_passthrough", Dialect::Gemini, "gemini", true),
    ("/genai", Dialect::Gemini, "gemini", false),
    ("/cohere", Dialect::Cohere, "cohere", false),
];

/// Reads a path. `offset` is where it begins in the head.
pub(crate) fn target(serving: &Serving, path: &[u8], offset: usize) -> Option<Target> {
    let providers = &serving.records().providers;
    let find = |name: &str| serving.provider_named(name.as_bytes());
    let known = |name: &[u8]| {
        let at = serving.provider_named(name)?;
        Some((at, crate::upstream::dialect_of(providers.get(at)?)))
    };
    let target = classify(path, offset, find, known);
    let relay = serving.records().relay.as_ref().map(|at| at.to_native() as usize);
    match (target, relay) {
        // A provider that takes everything takes what no other one could.
        (None, Some(_)) => Some(relayed(relay, path, offset)),
        (Some(target), Some(_)) if providers.len() == 1 || target.provider == relay => {
            Some(relayed(relay, path, offset))
        }
        (target, _) => target,
    }
}

fn relayed(provider: Option<usize>, path: &[u8], offset: usize) -> Target {
    let rest = offset..offset + path.len();
    let dialect = Dialect::OpenAi;
    Target { endpoint: Endpoint::Relay, dialect, provider, is_passthrough: true, version: "", rest, model: None }
}

fn classify(
    path: &[u8],
    offset: usize,
    find: impl Fn(&str) -> Option<usize>,
    known: impl Fn(&[u8]) -> Option<(usize, Dialect)>,
) -> Option<Target> {
    let (path, offset) = TRANSPARENT
        .iter()
        .find_map(|prefix| Some((strip(path, prefix)?, offset + prefix.len())))
        .unwrap_or((path, offset));
    for (prefix, dialect, provider, is_passthrough) in DROP_IN {
        if let Some(rest) = strip(path, prefix) {
            return Some(in_dialect(dialect, find(provider), is_passthrough, rest, offset + prefix.len()));
        }
    }
    if strip(path, "/v1/messages").is_some() {
        return Some(in_dialect(Dialect::Anthropic, None, false, path, offset));
    }
    if strip(path, "/v1beta").is_some() {
        return Some(in_dialect(Dialect::Gemini, None, false, path, offset));
    }
    if strip(path, "/v2").is_some() {
        return Some(in_dialect(Dialect::Cohere, None, false, path, offset));
    }
    if strip(path, "/v1").is_some() {
        return Some(in_dialect(Dialect::OpenAi, None, false, path, offset));
    }
    let name = path.strip_prefix(b"/")?.split(|byte| *byte == b'/').next()?;
    let (provider, dialect) = known(name)?;
    let prefix = 1 + name.len();
    Some(in_dialect(dialect, Some(provider), false, &path[prefix..], offset + prefix))
}

/// What is behind `prefix`, if a path segment ends there.
fn strip<'p>(path: &'p [u8], prefix: &str) -> Option<&'p [u8]> {
    path.strip_prefix(prefix.as_bytes()).filter(|rest| matches!(rest.first(), None | Some(b'/')))
}

fn in_dialect(dialect: Dialect, provider: Option<usize>, is_passthrough: bool, path: &[u8], offset: usize) -> Target {
    let versions: &[&'static str] = match dialect {
        Dialect::OpenAi | Dialect::Anthropic => &["/v1"],
        Dialect::Gemini => &["/v1beta", "/v1"],
        Dialect::Cohere => &["/v2", "/v1"],
    };
    let given = versions.iter().find_map(|version| Some((*version, strip(path, version)?)));
    // SDKs that are told a base URL without a version leave it out.
    let (version, rest, skipped) = match given {
        Some((version, rest)) => (version, rest, version.len()),
        None => (versions[0], path, 0),
    };
    let start = offset + skipped;
    let (endpoint, model) = match (dialect, rest) {
        (Dialect::OpenAi, b"/chat/completions") => (Endpoint::Chat, None),
        (Dialect::OpenAi, b"/completions") => (Endpoint::Completions, None),
        (Dialect::OpenAi, b"/embeddings") => (Endpoint::Embeddings, None),
        (Dialect::OpenAi, b"/responses") => (Endpoint::Responses, None),
        (Dialect::Anthropic, b"/messages") => (Endpoint::Messages, None),
        (Dialect::Cohere, b"/chat") => (Endpoint::CohereChat, None),
        (Dialect::OpenAi | Dialect::Anthropic, rest) if strip(rest, "/models").is_some() => (Endpoint::Models, None),
        (Dialect::Gemini, rest) => gemini(rest, start),
        _ => (Endpoint::Other, None),
    };
    Target { endpoint, dialect, provider, is_passthrough, version, rest: start..start + rest.len(), model }
}

/// `/models/MODEL:generateContent` and `:streamGenerateContent`.
fn gemini(rest: &[u8], start: usize) -> (Endpoint, Option<Range<usize>>) {
    let Some(named) = rest.strip_prefix(b"/models/") else { return (Endpoint::Other, None) };
    let Some(colon) = named.iter().position(|byte| *byte == b':') else { return (Endpoint::Other, None) };
    let from = start + b"/models/".len();
    let model = Some(from..from + colon);
    match &named[colon + 1..] {
        b"generateContent" | b"streamGenerateContent" => (Endpoint::Generate, model),
        _ => (Endpoint::Other, model),
    }
}

/// Whether a path could climb out of the prefix it is appended to: `.` and `..` segments, also
/// percent-encoded, and encoded slashes.
pub(crate) fn climbs(path: &[u8]) -> bool {
    let is_dots = |segment: &[u8]| {
        let mut decoded = [0; 4];
        let mut len = 0;
        let mut at = 0;
        while at < segment.len() && len < decoded.len() {
            let escaped = segment.get(at..at + 3).unwrap_or_default();
            if escaped.eq_ignore_ascii_case(b"%2e") || escaped.eq_ignore_ascii_case(b"%3b") {
                decoded[len] = if escaped[1] == b'2' { b'.' } else { b';' };
                at += 3;
            } else {
                decoded[len] = segment[at];
                at += 1;
            }
            len += 1;
        }
        // Some servers take what follows a semicolon for parameters of the segment.
        let name = decoded[..len].split(|byte| *byte == b';').next().unwrap_or_default();
        matches!(name, b"." | b"..") && (at == segment.len() || name.len() < len)
    };
    let is_slash = |at: usize| {
        let escaped = path.get(at..at + 3).unwrap_or_default();
        escaped.eq_ignore_ascii_case(b"%2f") || escaped.eq_ignore_ascii_case(b"%5c")
    };
    memchr::memchr2_iter(b'%', b'\\', path).any(|at| path[at] == b'\\' || is_slash(at))
        || is_dots(path.split(|byte| *byte == b'/').next().unwrap_or_default())
        || memchr::memchr_iter(b'/', path).any(|at| {
            let rest = &path[at + 1..];
            // Nearly all segments begin with a letter.
            matches!(rest.first(), Some(b'.' | b'%'))
                && is_dots(rest.split(|byte| *byte == b'/').next().unwrap_or_default())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Endpoint, dialect, provider, version, rest and model.
    type Found<'p> = (Endpoint, Dialect, Option<usize>, &'static str, &'p str, Option<&'p str>);

    fn check(path: &str) -> Option<Found<'_>> {
        let find = |name: &str| (name == "openai").then_some(0).or((name == "anthropic").then_some(1));
        let known = |name: &[u8]| (name == b"groq").then_some((7, Dialect::OpenAi));
        let target = classify(path.as_bytes(), 0, find, known)?;
        let text = |range: Range<usize>| &path[range];
        let model = target.model.clone().map(text);
        Some((target.endpoint, target.dialect, target.provider, target.version, text(target.rest.clone()), model))
    }

    #[test]
    fn the_openai_dialect_stands_at_the_root_and_under_its_prefixes() {
        let chat = |provider| Some((Endpoint::Chat, Dialect::OpenAi, provider, "/v1", "/chat/completions", None));
        assert_eq!(check("/v1/chat/completions"), chat(None));
        assert_eq!(check("/openai/v1/chat/completions"), chat(Some(0)));
        assert_eq!(check("/openai/chat/completions"), chat(Some(0)));
        assert_eq!(check("/litellm/v1/chat/completions"), chat(None));
        assert_eq!(check("/groq/chat/completions"), chat(Some(7)));
    }

    #[test]
    fn the_anthropic_dialect_stands_at_the_root_and_under_its_prefix() {
        let messages = |provider| Some((Endpoint::Messages, Dialect::Anthropic, provider, "/v1", "/messages", None));
        assert_eq!(check("/v1/messages"), messages(None));
        assert_eq!(check("/anthropic/v1/messages"), messages(Some(1)));
        assert_eq!(check("/langchain/anthropic/v1/messages"), messages(Some(1)));
    }

    #[test]
    fn gemini_names_its_model_in_the_path() {
        let found = check("/genai/v1beta/models/gemini-2.5-pro:streamGenerateContent").unwrap();
        assert_eq!((found.0, found.1, found.5), (Endpoint::Generate, Dialect::Gemini, Some("gemini-2.5-pro")));
        assert_eq!(check("/v1beta/models/m:countTokens").unwrap().0, Endpoint::Other);
    }

    #[test]
    fn unknown_paths_are_nobodys() {
        for path in ["/", "/v1x/chat", "/openaix/v1/chat/completions", "*", "/unknown/v1/chat/completions"] {
            assert_eq!(check(path), None, "{path}");
        }
    }

    #[test]
    fn a_path_that_climbs_is_seen_through_its_encoding() {
        for path in [
            "/a/../b",
            "/a/%2e%2E/b",
            "/a/.%2e",
            "/./a",
            "/a%2fb",
            "/a\\b",
            "/..",
            "/..;/a",
            "/..;x=1",
            "/%2e.%3b/",
            "/.;a/b",
        ] {
            assert!(climbs(path.as_bytes()), "{path}");
        }
        for path in ["/a/...", "/a/.b", "/a;..", "/...;", "/v1/models/gpt-4.1", "/"] {
            assert!(!climbs(path.as_bytes()), "{path}");
        }
    }
}
