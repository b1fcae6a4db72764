//! The engine, set up as transformers sets up jinja2.

use std::fmt::Write;

use chrono::NaiveDateTime;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Output, State};

use super::python::{self, type_error};
use super::{filters, methods};

/// What one rendering may cost. One unit is an instruction or 64 bytes, so this allows for about ten
/// thousand turns or a hundred megabytes, and ends a hostile loop within a few seconds.
const FUEL: u64 = 4_000_000;

/// An environment without templates.
pub(super) fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    let mut syntax = SyntaxConfig::builder();
    if let Ok(syntax) = syntax.trim_blocks(true).lstrip_blocks(true).build() {
        environment.set_syntax(syntax);
    }
    // A dump of all variables belongs into no message.
    environment.set_debug(false);
    environment.set_fuel(Some(FUEL));
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_formatter(print);
    environment.set_unknown_method_callback(methods::call);
    filters::add_filters(&mut environment);
    filters::add_tests(&mut environment);
    environment.add_function("raise_exception", raise_exception);
    set_clock(&mut environment, || chrono::Local::now().naive_local());
    environment
}

/// Makes `strftime_now` ask `clock` for the time.
pub(super) fn set_clock(
    environment: &mut Environment<'static>,
    clock: impl Fn() -> NaiveDateTime + Send + Sync + 'static,
) {
    environment.add_function("strftime_now", move |format: &str| {
        let mut text = String::new();
        write!(text, "{}", clock().format(format))
            .map_err(|_| type_error(format!("strftime_now: `{format}` is no time format")))?;
        Ok(text)
    });
}

fn print(out: &mut Output, _: &mut State, value: &Value) -> Result<(), Error> {
    match value.as_str() {
        Some(text) => out.write_str(text)?,
        None => out.write_str(&python::str(value)?)?,
    }
    Ok(())
}

fn raise_exception(message: &Value) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, python::str(message)?))
}
