//! A limit on the time that a plugin's code may take: it describes, so it is done in milliseconds, and what is not
//! done in seconds is an endless loop.

use std::{
    sync::mpsc::{RecvTimeoutError, sync_channel},
    thread,
    time::Duration,
};

/// How long a plugin may take to load, and to record a model.
pub const TIME_LIMIT: Duration = Duration::from_secs(30);

/// The stack that a plugin's code gets, as much as a main thread has.
pub const STACK: usize = 8 << 20;

/// Runs `f` on a thread of its own, which has so much stack, for so long at most. A thread that does not come back cannot be ended: it is left
/// behind, until the process ends.
pub fn within<T: Send + 'static>(
    limit: Duration,
    stack: usize,
    what: &str,
    f: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let (send, receive) = sync_channel(1);
    let thread = thread::Builder::new().name("tamarack plugin".into()).stack_size(stack).spawn(move || {
        let _ = send.send(f());
    });
    thread.map_err(|e| format!("{what}: no thread for it: {e}"))?;
    receive.recv_timeout(limit).unwrap_or_else(|e| match e {
        RecvTimeoutError::Timeout => Err(format!(
            "{what} did not end within {} s, an endless loop? It still runs: restart the program to stop it, and \
             take the plugin away or mend it",
            limit.as_secs_f32()
        )),
        // The boundary catches panics, so this is a thread that was ended from within.
        RecvTimeoutError::Disconnected => Err(format!("{what} ended its thread: mend the plugin")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_back_and_endless_loops_are_left_behind() {
        let limit = Duration::from_millis(50);
        assert_eq!(within(limit, STACK, "x", || Ok(7)), Ok(7));
        assert_eq!(within(limit, STACK, "x", || Err::<(), _>("no".to_owned())), Err("no".to_owned()));
        let e = within::<()>(limit, STACK, "counting", || {
            loop {
                thread::sleep(Duration::from_secs(1));
            }
        });
        assert!(e.unwrap_err().starts_with("counting did not end within 0.05 s, an endless loop? It still runs"));
        let e = within::<()>(limit, STACK, "leaving", || panic!("on purpose"));
        assert_eq!(e.unwrap_err(), "leaving ended its thread: mend the plugin");
    }
}
