//! Waiting for what must come. Nobody waits as long as this for what does.

use std::{future::Future, time::Duration};
use tokio::time::{interval, timeout};

pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

pub(crate) async fn within<T>(awaited: impl Future<Output = T>) -> T {
    timeout(PATIENCE, awaited).await.expect("waited in vain")
}

/// Asks again until there is an answer.
pub(crate) async fn eventually<T>(ask: impl AsyncFnMut() -> Option<T>) -> T {
    eventually_of("an answer", ask).await
}

/// The same, and says of what it is one.
pub(crate) async fn eventually_of<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let answered = async {
        let mut again = interval(Duration::from_millis(5));
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            again.tick().await;
        }
    };
    timeout(PATIENCE, answered).await.unwrap_or_else(|_| panic!("waited in vain: {what}"))
}
