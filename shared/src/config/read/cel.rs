//! `cel_expression` of a routing rule: the part of the Common Expression Language that says the same
//! as a `match` does. It is taken apart once, here, into the conditions that the nodes look at.
//!
//! Pure. Absent: numbers and what is counted (`budget_used` and its like), `params`, regular
//! expressions, arithmetic, functions of CEL's own, escapes in texts.

use crate::config::model::{Condition, Pattern, Subject};

/// Alternatives that one expression may come to, and conditions in each.
const ALTERNATIVES_MAX: usize = 16;
const CONDITIONS_MAX: usize = 16;
/// Parentheses and negations within each other.
const DEPTH_MAX: usize = 16;
/// Entries of one list.
const LIST_MAX: usize = 100;

/// What may stand in an expression.
pub(super) const EXPECTED: &str = "model, provider, request_type, headers[\"NAME\"], virtual_key_id, virtual_key_name, \
     team_id, team_name, customer_id or customer_name with ==, !=, in, startsWith, endsWith or contains and a text, \
     joined by &&, || and !; or a \"match\" instead";

/// Why an expression is not taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CelFault {
    /// In characters, from 1.
    pub(super) at: usize,
    pub(super) problem: String,
}

/// The conditions of an expression: it holds where every condition of one of these does.
pub(super) fn alternatives(text: &str) -> Result<Vec<Vec<Condition>>, CelFault> {
    let mut parser = Parser { text, at: 0 };
    if parser.peek()?.is_none() {
        return Ok(vec![Vec::new()]);
    }
    let parsed = parser.any(0)?;
    if let Some(token) = parser.peek()? {
        return Err(parser.fault(format!("nothing can follow here, and {} does", token.shown())));
    }
    flattened(&parsed, false).ok_or_else(|| CelFault {
        at: 1,
        problem: format!("comes to more than {ALTERNATIVES_MAX} alternatives, or {CONDITIONS_MAX} conditions in one"),
    })
}

enum Parsed {
    Constant(bool),
    Is(Condition),
    All(Vec<Parsed>),
    Any(Vec<Parsed>),
    Not(Box<Parsed>),
}

/// Alternatives of conditions; `None` where there are too many. A negation goes down to the
/// conditions, turning "all" into "any" and the other way round.
fn flattened(parsed: &Parsed, is_negated: bool) -> Option<Vec<Vec<Condition>>> {
    match parsed {
        Parsed::Constant(holds) if *holds != is_negated => Some(vec![Vec::new()]),
        Parsed::Constant(_) => Some(Vec::new()),
        Parsed::Is(condition) => {
            let condition = Condition { is_negated: condition.is_negated != is_negated, ..condition.clone() };
            Some(vec![vec![condition]])
        }
        Parsed::Not(inner) => flattened(inner, !is_negated),
        Parsed::Any(parts) if !is_negated => one_of(parts, is_negated),
        Parsed::All(parts) if is_negated => one_of(parts, is_negated),
        Parsed::All(parts) | Parsed::Any(parts) => {
            let mut all = vec![Vec::new()];
            for part in parts {
                let part = flattened(part, is_negated)?;
                let joined = |before: &Vec<Condition>| {
                    part.iter().map(|more| [before.as_slice(), more].concat()).collect::<Vec<_>>()
                };
                all = all.iter().flat_map(joined).collect();
                if all.len() > ALTERNATIVES_MAX || all.iter().any(|one: &Vec<_>| one.len() > CONDITIONS_MAX) {
                    return None;
                }
            }
            Some(all)
        }
    }
}

fn one_of(parts: &[Parsed], is_negated: bool) -> Option<Vec<Vec<Condition>>> {
    let mut any = Vec::new();
    for part in parts {
        any.extend(flattened(part, is_negated)?);
    }
    (any.len() <= ALTERNATIVES_MAX).then_some(any)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Token<'t> {
    Word(&'t str),
    Text(&'t str),
    Mark(&'static str),
}

impl Token<'_> {
    fn shown(self) -> String {
        match self {
            Self::Word(text) | Self::Mark(text) => format!("`{text}`"),
            Self::Text(_) => "a text".to_owned(),
        }
    }
}

/// Longer ones first.
const MARKS: [&str; 11] = ["==", "!=", "&&", "||", "!", "(", ")", "[", "]", ",", "."];

struct Parser<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Parser<'t> {
    fn fault(&self, problem: impl Into<String>) -> CelFault {
        let before = self.text.get(..self.at).unwrap_or_default();
        CelFault { at: before.chars().count() + 1, problem: problem.into() }
    }

    fn peek(&mut self) -> Result<Option<Token<'t>>, CelFault> {
        let at = self.at;
        let token = self.take();
        self.at = at;
        let blanks = self.text.get(at..).unwrap_or_default();
        self.at += blanks.len() - blanks.trim_start().len();
        token
    }

    fn take(&mut self) -> Result<Option<Token<'t>>, CelFault> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let trimmed = rest.trim_start();
        self.at += rest.len() - trimmed.len();
        let Some(first) = trimmed.chars().next() else { return Ok(None) };
        if let Some(mark) = MARKS.into_iter().find(|mark| trimmed.starts_with(mark)) {
            self.at += mark.len();
            return Ok(Some(Token::Mark(mark)));
        }
        if matches!(first, '"' | '\'') {
            let inner = trimmed.get(1..).unwrap_or_default();
            let Some(len) = inner.find(first) else { return Err(self.fault("this text does not end")) };
            let text = inner.get(..len).unwrap_or_default();
            if text.contains('\\') {
                return Err(self.fault("a text with `\\` is not understood here"));
            }
            self.at += len + 2;
            return Ok(Some(Token::Text(text)));
        }
        let len =
            trimmed.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').unwrap_or(trimmed.len());
        match trimmed.get(..len).filter(|_| first.is_ascii_alphabetic() || first == '_') {
            Some(word) => {
                self.at += len;
                Ok(Some(Token::Word(word)))
            }
            None => Err(self.fault(format!("`{first}` is not understood here"))),
        }
    }

    fn takes(&mut self, mark: &'static str) -> Result<bool, CelFault> {
        let is_next = self.peek()? == Some(Token::Mark(mark));
        if is_next {
            self.take()?;
        }
        Ok(is_next)
    }

    fn expect(&mut self, mark: &'static str) -> Result<(), CelFault> {
        if self.takes(mark)? { Ok(()) } else { Err(self.fault(format!("`{mark}` is missing here"))) }
    }

    fn text(&mut self) -> Result<&'t str, CelFault> {
        match self.peek()? {
            Some(Token::Text(text)) => {
                self.take()?;
                Ok(text)
            }
            Some(token) => Err(self.fault(format!("a text in quotes has to stand here, and {} does", token.shown()))),
            None => Err(self.fault("a text in quotes is missing at the end")),
        }
    }

    fn any(&mut self, depth: usize) -> Result<Parsed, CelFault> {
        let mut parts = vec![self.all(depth)?];
        while self.takes("||")? {
            parts.push(self.all(depth)?);
        }
        Ok(Parsed::Any(parts))
    }

    fn all(&mut self, depth: usize) -> Result<Parsed, CelFault> {
        let mut parts = vec![self.one(depth)?];
        while self.takes("&&")? {
            parts.push(self.one(depth)?);
        }
        Ok(Parsed::All(parts))
    }

    fn one(&mut self, depth: usize) -> Result<Parsed, CelFault> {
        if depth > DEPTH_MAX {
            return Err(self.fault(format!("nested deeper than {DEPTH_MAX} levels")));
        }
        if self.takes("!")? {
            return Ok(Parsed::Not(Box::new(self.one(depth + 1)?)));
        }
        if self.takes("(")? {
            let inner = self.any(depth + 1)?;
            self.expect(")")?;
            return Ok(inner);
        }
        match self.peek()? {
            Some(Token::Word(constant @ ("true" | "false"))) => {
                self.take()?;
                Ok(Parsed::Constant(constant == "true"))
            }
            Some(Token::Text(text)) => {
                self.take()?;
                self.after_text(text)
            }
            Some(Token::Word(_)) => {
                let subject = self.subject()?;
                self.after_subject(subject)
            }
            Some(token @ Token::Mark(_)) => {
                Err(self.fault(format!("a condition has to stand here, and {} does", token.shown())))
            }
            None => Err(self.fault("a condition is missing at the end")),
        }
    }

    /// `"text" == model` and `"name" in headers`.
    fn after_text(&mut self, text: &str) -> Result<Parsed, CelFault> {
        if self.peek()? == Some(Token::Word("in")) {
            self.take()?;
            if self.peek()? != Some(Token::Word("headers")) {
                return Err(self.fault("behind a text, `in headers` is understood and nothing else"));
            }
            self.take()?;
            let subject = VariableIs::Plain(Subject::Header(text.to_ascii_lowercase()));
            return Ok(subject.condition(Vec::new(), false));
        }
        let is_negated = self.takes("!=")?;
        if !is_negated {
            self.expect("==")?;
        }
        let subject = self.subject()?;
        let patterns = self.equal_to(&subject, text)?;
        Ok(subject.condition(patterns, is_negated))
    }

    fn after_subject(&mut self, subject: VariableIs) -> Result<Parsed, CelFault> {
        if self.takes("==")? || self.takes("!=")? {
            let is_negated = self.text.get(..self.at).is_some_and(|before| before.ends_with("!="));
            let text = self.text()?;
            let patterns = self.equal_to(&subject, text)?;
            return Ok(subject.condition(patterns, is_negated));
        }
        if self.peek()? == Some(Token::Word("in")) {
            self.take()?;
            let patterns = self.list(&subject)?;
            return Ok(subject.condition(patterns, false));
        }
        if !self.takes(".")? {
            return Err(self.fault("a comparison is missing here"));
        }
        let how: fn(String) -> Pattern = match self.peek()? {
            Some(Token::Word("startsWith")) => Pattern::Prefix,
            Some(Token::Word("endsWith")) => Pattern::Suffix,
            Some(Token::Word("contains")) => Pattern::Contains,
            Some(Token::Word(word)) => return Err(self.fault(format!("`{word}` is not understood here"))),
            _ => return Err(self.fault("the name of a function is missing here")),
        };
        if matches!(subject, VariableIs::RequestType) {
            return Err(self.fault("request_type is compared as a whole"));
        }
        self.take()?;
        self.expect("(")?;
        let text = self.text()?;
        self.expect(")")?;
        Ok(subject.condition(vec![how(text.to_owned())], false))
    }

    fn list(&mut self, subject: &VariableIs) -> Result<Vec<Pattern>, CelFault> {
        self.expect("[")?;
        let mut patterns = Vec::new();
        loop {
            let text = self.text()?;
            patterns.extend(self.equal_to(subject, text)?);
            if patterns.len() > LIST_MAX {
                return Err(self.fault(format!("more than {LIST_MAX} texts in one list")));
            }
            if !self.takes(",")? {
                self.expect("]")?;
                return Ok(patterns);
            }
        }
    }

    fn subject(&mut self) -> Result<VariableIs, CelFault> {
        let Some(Token::Word(word)) = self.peek()? else {
            return Err(self.fault("the name of a variable is missing here"));
        };
        let plain = match word {
            "request_type" => {
                self.take()?;
                return Ok(VariableIs::RequestType);
            }
            "headers" => {
                self.take()?;
                self.expect("[")?;
                let name = self.text()?;
                self.expect("]")?;
                return Ok(VariableIs::Plain(Subject::Header(name.to_ascii_lowercase())));
            }
            "model" => Subject::Model,
            "provider" => Subject::Provider,
            "virtual_key_id" => Subject::VirtualKeyId,
            "virtual_key_name" => Subject::VirtualKeyName,
            "team_id" => Subject::TeamId,
            "team_name" => Subject::TeamName,
            "customer_id" => Subject::CustomerId,
            "customer_name" => Subject::CustomerName,
            other => return Err(self.fault(format!("`{other}` is not known here"))),
        };
        self.take()?;
        Ok(VariableIs::Plain(plain))
    }

    fn equal_to(&self, subject: &VariableIs, text: &str) -> Result<Vec<Pattern>, CelFault> {
        match subject {
            VariableIs::Plain(_) => Ok(vec![Pattern::Equal(text.to_owned())]),
            VariableIs::RequestType => {
                let endpoints = endpoints(text)
                    .ok_or_else(|| self.fault(format!("the request type {text:?} is not known here")))?;
                Ok(endpoints.iter().map(|name| Pattern::Equal((*name).to_owned())).collect())
            }
        }
    }
}

/// What a variable stands for.
enum VariableIs {
    Plain(Subject),
    /// Has words of its own for endpoints.
    RequestType,
}

impl VariableIs {
    fn condition(self, patterns: Vec<Pattern>, is_negated: bool) -> Parsed {
        let subject = match self {
            Self::Plain(subject) => subject,
            Self::RequestType => Subject::Endpoint,
        };
        Parsed::Is(Condition { subject, is_negated, patterns })
    }
}

/// Endpoints of a request type. Chats of all dialects are one type there.
fn endpoints(request_type: &str) -> Option<&'static [&'static str]> {
    Some(match request_type {
        "chat_completion" => &["chat", "messages", "generate", "cohere_chat"],
        "text_completion" => &["completions"],
        "embedding" => &["embeddings"],
        "responses" => &["responses"],
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
