//! Budgets at a node: what is reserved, what is charged in the end, and what happens when there is
//! nothing left or no price.

use crate::rig::{Node, Provider, Wire, chat_with};

/// 7 tokens at $100 a million, 5 at $200: 700 and 1,000 millionths of a dollar.
const ANSWERED: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 58\r\n\r\n\
    {\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":5},\"x\":[]}";
const COST: u64 = 1_700;
const GOVERNANCE: &str = r#""governance": {
    "model_configs": [
        { "model_name": "m", "input_cost_per_token": 0.9, "output_cost_per_token": 0.9 },
        { "model_name": "m", "provider": "openai", "input_cost_per_token": 0.0001, "output_cost_per_token": 0.0002 }],
    "budgets": [{ "id": "team", "max_limit": 0.02, "reset_duration": "1d" }],
    "teams": [{ "id": "t", "name": "t", "budget_id": "team" }],
    "virtual_keys": [{ "id": "v", "name": "v", "value": "sk-bf-v", "team_id": "t" }] },"#;
const USED: &str = "deepintshield_limit_used{limit=\"team/usd\",unit=\"micro_usd\"}";

fn ask(client: &mut Wire, model: &str, max_tokens: u64) -> u64 {
    let body = format!(r#"{{"model":"openai/{model}","messages":[],"max_tokens":{max_tokens}}}"#);
    client.send(chat_with("x-bf-vk: sk-bf-v\r\n", &body));
    body.len().div_ceil(2) as u64
}

#[test]
fn a_budget_reserves_the_most_and_charges_what_was_used() {
    let provider = Provider::start();
    let node = Node::start("budget", &provider.entry(""), GOVERNANCE);
    let mut client = node.connect();
    let prompt = ask(&mut client, "m", 50);
    let mut upstream = provider.accept();
    upstream.message();
    // The price at this provider, not the one for everywhere.
    node.shows(USED, prompt * 100 + 50 * 200);
    upstream.send(ANSWERED);
    let (head, _) = client.message();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    node.shows(USED, COST);

    // Two cents are 20,000 millionths: what this may cost at most is not there.
    ask(&mut client, "m", 80);
    let (head, body) = client.message();
    let body = String::from_utf8_lossy(&body);
    assert!(head.starts_with("HTTP/1.1 402 ") && head.contains("\r\nretry-after: "), "{head}");
    assert!(body.contains("budget_exceeded") && body.contains("team/usd"), "{body}");

    ask(&mut client, "other", 1);
    let (head, body) = client.message();
    let body = String::from_utf8_lossy(&body);
    assert!(head.starts_with("HTTP/1.1 402 ") && body.contains("price_unknown"), "{head}{body}");
    node.shows(USED, COST);
    drop((client, upstream));
    node.stop();
}
