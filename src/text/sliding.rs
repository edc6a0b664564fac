//! A window over a conversation: which messages go when it no longer fits the context.

use serde_json::Value;

/// The messages without their oldest turn, and how many went. A turn begins with a user's message and goes with the answers
/// and tool results after it; system messages stay wherever they are. `None` where only the last turn is left.
pub fn without_oldest_turn(messages: &Value) -> Option<(Value, usize)> {
    let messages = messages.as_array()?;
    let role = |at: usize| messages[at]["role"].as_str();
    let is_system = |at: usize| matches!(role(at), Some("system" | "developer"));
    let first = (0..messages.len()).find(|&at| !is_system(at))?;
    let next = (first + 1..messages.len()).find(|&at| role(at) == Some("user"))?;
    let kept = (0..messages.len()).filter(|&at| !(first..next).contains(&at) || is_system(at));
    let kept: Vec<Value> = kept.map(|at| messages[at].clone()).collect();
    let gone = messages.len() - kept.len();
    Some((Value::Array(kept), gone))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn whole_turns_go_the_oldest_first_and_system_messages_stay() {
        let message = |role: &str, content: &str| json!({ "role": role, "content": content });
        let all = json!([
            message("system", "s"),
            message("user", "1"),
            message("assistant", "call"),
            message("tool", "result"),
            message("developer", "d"),
            message("assistant", "2"),
            message("user", "3"),
            message("assistant", "4"),
            message("user", "5"),
        ]);
        let (shorter, gone) = without_oldest_turn(&all).expect("three turns");
        assert_eq!((gone, shorter.as_array().map(Vec::len)), (4, Some(5)));
        assert_eq!([&shorter[0]["content"], &shorter[1]["content"], &shorter[2]["content"]], ["s", "d", "3"]);
        let (last, gone) = without_oldest_turn(&shorter).expect("two turns");
        assert_eq!((gone, &last[2]["content"]), (2, &json!("5")));
        assert_eq!(without_oldest_turn(&last), None, "the last turn stays");
        assert_eq!(without_oldest_turn(&json!("no messages")), None);
    }
}
