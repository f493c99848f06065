//! Which call a method and a path are. Pure.

/// Whose shapes an answer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    OpenAi,
    Anthropic,
    Gemini,
    Cohere,
}

/// A call that the simulator knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Route {
    /// POST /v1/chat/completions
    Chat,
    /// POST /v1/completions
    Completions,
    /// POST /v1/responses
    Responses,
    /// POST /v1/embeddings
    Embeddings,
    /// GET /v1/models and /v1/models/NAME
    Models,
    /// POST /v1/messages
    Messages,
    /// POST `/v1beta/models/M:generateContent`
    GeminiGenerate,
    /// POST `/v1beta/models/M:streamGenerateContent?alt=sse`
    GeminiStream,
    /// POST /v2/chat
    CohereChat,
    /// GET /__sim/stats
    Stats,
    /// GET /__sim/admissions
    Admissions,
    /// POST /__sim/reset
    Reset,
    /// Anything else: 404, or 405 for a known path with another method.
    Unknown,
}

impl Route {
    /// The name under which it is counted.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Route::Chat => "/v1/chat/completions",
            Route::Completions => "/v1/completions",
            Route::Responses => "/v1/responses",
            Route::Embeddings => "/v1/embeddings",
            Route::Models => "/v1/models",
            Route::Messages => "/v1/messages",
            Route::GeminiGenerate => "/v1beta/models/:generateContent",
            Route::GeminiStream => "/v1beta/models/:streamGenerateContent",
            Route::CohereChat => "/v2/chat",
            Route::Stats => "/__sim/stats",
            Route::Admissions => "/__sim/admissions",
            Route::Reset => "/__sim/reset",
            Route::Unknown => "other",
        }
    }

    /// Whose shapes its answers have.
    pub(crate) fn dialect(self) -> Dialect {
        match self {
            Route::Messages => Dialect::Anthropic,
            Route::GeminiGenerate | Route::GeminiStream => Dialect::Gemini,
            Route::CohereChat => Dialect::Cohere,
            _ => Dialect::OpenAi,
        }
    }
}

/// The call, and the model if the path names one. Paths may lack their version (`/v1`).
pub(crate) fn find<'a>(method: &str, target: &'a str) -> (Route, &'a str) {
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    let versionless = ["/v1beta", "/v1", "/v2"]
        .iter()
        .find_map(|version| path.strip_prefix(version).filter(|rest| rest.starts_with('/')))
        .unwrap_or(path);
    match (method, versionless) {
        ("POST", "/chat/completions") => (Route::Chat, ""),
        ("POST", "/completions") => (Route::Completions, ""),
        ("POST", "/responses") => (Route::Responses, ""),
        ("POST", "/embeddings") => (Route::Embeddings, ""),
        ("POST", "/messages") => (Route::Messages, ""),
        ("POST", "/chat") => (Route::CohereChat, ""),
        ("GET" | "HEAD", "/models") => (Route::Models, ""),
        ("GET", "/__sim/stats") => (Route::Stats, ""),
        ("GET", "/__sim/admissions") => (Route::Admissions, ""),
        ("POST", "/__sim/reset") => (Route::Reset, ""),
        (_, path) => match (method, path.strip_prefix("/models/")) {
            ("GET" | "HEAD", Some(model)) => (Route::Models, model),
            ("POST", Some(call)) => match call.rsplit_once(':') {
                Some((model, "generateContent")) => (Route::GeminiGenerate, model),
                Some((model, "streamGenerateContent")) => (Route::GeminiStream, model),
                _ => (Route::Unknown, ""),
            },
            _ => (Route::Unknown, ""),
        },
    }
}

/// The value of `name` in the query of `target`, as it stands (no percent-decoding).
pub(crate) fn query<'a>(target: &'a str, name: &str) -> Option<&'a str> {
    queries(target).find_map(|(this, value)| (this == name).then_some(value))
}

/// All fields of the query of `target`.
pub(crate) fn queries(target: &str) -> impl Iterator<Item = (&str, &str)> {
    let query = target.split_once('?').map_or("", |(_, query)| query);
    query.split('&').filter_map(|field| field.split_once('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dialect_is_found_with_and_without_its_version() {
        let is = |method: &str, target: &str, route: Route, model: &str| {
            assert_eq!(find(method, target), (route, model), "{target}");
        };
        is("POST", "/v1/chat/completions", Route::Chat, "");
        is("POST", "/chat/completions?api-version=1", Route::Chat, "");
        is("POST", "/v1/messages?beta=true", Route::Messages, "");
        is("POST", "/v1beta/models/gemini-2.0-flash:generateContent", Route::GeminiGenerate, "gemini-2.0-flash");
        is("POST", "/models/m:streamGenerateContent?alt=sse", Route::GeminiStream, "m");
        is("POST", "/v2/chat", Route::CohereChat, "");
        is("GET", "/v1/models/gpt-4o", Route::Models, "gpt-4o");
        is("GET", "/v1/chat/completions", Route::Unknown, "");
        is("POST", "/v1chat/completions", Route::Unknown, "");
        is("GET", "/__sim/stats?window=60s", Route::Stats, "");
        is("GET", "/__sim/admissions?from=9", Route::Admissions, "");
    }

    #[test]
    fn query_fields_are_found() {
        assert_eq!(query("/a?x=1&key=k", "key"), Some("k"));
        assert_eq!(query("/a", "key"), None);
    }
}
