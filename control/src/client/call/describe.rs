//! Services, messages and enums as text, in the language of `.proto` files.

use std::fmt::Write;

use prost_reflect::{Cardinality, DescriptorPool, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};
use prost_reflect::{MethodDescriptor, ServiceDescriptor};

use super::CallError;

/// The full names of a service's methods, as they are called.
pub(super) fn methods(pool: &DescriptorPool, service: &str) -> Result<Vec<String>, CallError> {
    let found = pool.get_service_by_name(service).ok_or_else(|| unknown(service))?;
    Ok(found.methods().map(|method| format!("{service}/{}", method.name())).collect())
}

/// What a name stands for.
pub(super) fn describe(pool: &DescriptorPool, name: &str) -> Result<String, CallError> {
    if let Some(service) = pool.get_service_by_name(name) {
        return Ok(of_service(&service));
    }
    if let Some(message) = pool.get_message_by_name(name) {
        return Ok(of_message(&message));
    }
    if let Some(values) = pool.get_enum_by_name(name) {
        return Ok(of_enum(&values));
    }
    let method = name.rsplit_once('.').and_then(|(service, method)| {
        let service = pool.get_service_by_name(service)?;
        service.methods().find(|found| found.name() == method)
    });
    let method = method.ok_or_else(|| unknown(name))?;
    let mut text = format!("{}\n", of_method(&method));
    text += &of_message(&method.input());
    text += &of_message(&method.output());
    Ok(text)
}

fn unknown(name: &str) -> CallError {
    CallError::Usage(format!("the server describes no {name}: `list` shows its services"))
}

fn of_service(service: &ServiceDescriptor) -> String {
    let mut text = format!("service {} {{\n", service.full_name());
    for method in service.methods() {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {}", of_method(&method));
    }
    text + "}\n"
}

fn of_method(method: &MethodDescriptor) -> String {
    let stream = |is_stream: bool| if is_stream { "stream " } else { "" };
    format!(
        "rpc {}({}{}) returns ({}{});",
        method.name(),
        stream(method.is_client_streaming()),
        method.input().full_name(),
        stream(method.is_server_streaming()),
        method.output().full_name(),
    )
}

fn of_message(message: &MessageDescriptor) -> String {
    let mut text = format!("message {} {{\n", message.full_name());
    for field in message.fields() {
        let oneof = field.containing_oneof().filter(|oneof| !oneof.is_synthetic());
        let oneof = oneof.map(|oneof| format!(" // one of {}", oneof.name())).unwrap_or_default();
        let _ = writeln!(text, "  {} {} = {};{oneof}", of_type(&field), field.name(), field.number());
    }
    text + "}\n"
}

fn of_type(field: &FieldDescriptor) -> String {
    if let (true, Kind::Message(entry)) = (field.is_map(), field.kind()) {
        let (key, value) = (entry.map_entry_key_field(), entry.map_entry_value_field());
        return format!("map<{}, {}>", of_kind(&key.kind()), of_kind(&value.kind()));
    }
    let kind = of_kind(&field.kind());
    match field.cardinality() {
        Cardinality::Repeated => format!("repeated {kind}"),
        Cardinality::Required => format!("required {kind}"),
        Cardinality::Optional if field.field_descriptor_proto().proto3_optional() => format!("optional {kind}"),
        Cardinality::Optional => kind,
    }
}

fn of_kind(kind: &Kind) -> String {
    match kind {
        Kind::Message(message) => message.full_name().to_owned(),
        Kind::Enum(values) => values.full_name().to_owned(),
        scalar => format!("{scalar:?}").to_lowercase(),
    }
}

fn of_enum(values: &EnumDescriptor) -> String {
    let mut text = format!("enum {} {{\n", values.full_name());
    for value in values.values() {
        let _ = writeln!(text, "  {} = {};", value.name(), value.number());
    }
    text + "}\n"
}
