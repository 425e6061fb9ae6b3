//! What the server can do, as tools such as grpcurl ask for it.

use std::collections::HashMap;

use bytes::Bytes;
use prost::Message;
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet};

use super::proto::reflection::server_reflection_request::MessageRequest;
use super::proto::reflection::server_reflection_response::MessageResponse;
use super::proto::reflection::{
    ErrorResponse, ExtensionNumberResponse, FileDescriptorResponse, ListServiceResponse,
    ServerReflectionRequest, ServerReflectionResponse, ServiceResponse,
};

/// The descriptors of all messages and services, as compiled.
const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Status codes of gRPC, which stand in answers here.
const NOT_FOUND: i32 = 5;
const INVALID_ARGUMENT: i32 = 3;

/// Answers questions about the services.
#[derive(Debug)]
pub struct Reflection {
    /// Encoded files.
    files: Vec<Bytes>,
    /// By name, each with the files that it imports, itself first.
    closures: HashMap<String, Vec<usize>>,
    /// The file that declares it, by full name.
    symbols: HashMap<String, String>,
    services: Vec<String>,
}

impl Default for Reflection {
    fn default() -> Self {
        Self::new()
    }
}

impl Reflection {
    /// The services of this build.
    #[must_use]
    pub fn new() -> Self {
        // We wrote it ourselves: were it broken, there would be no services, which a test sees.
        let files = FileDescriptorSet::decode(DESCRIPTORS).unwrap_or_default().file;
        let positions: HashMap<&str, usize> =
            files.iter().enumerate().map(|(position, file)| (file.name(), position)).collect();
        let closure = |start: usize| {
            let mut closure = vec![start];
            let mut next = 0;
            while let Some(&file) = closure.get(next) {
                let imports = files[file].dependency.iter();
                let imports = imports.filter_map(|name| positions.get(name.as_str()).copied());
                for import in imports {
                    if !closure.contains(&import) {
                        closure.push(import);
                    }
                }
                next += 1;
            }
            closure
        };
        let closures =
            files.iter().enumerate().map(|(at, file)| (file.name().to_owned(), closure(at)));
        let closures = closures.collect();
        let (mut symbols, mut services) = (HashMap::new(), Vec::new());
        for file in &files {
            for symbol in symbols_of(file) {
                symbols.insert(symbol, file.name().to_owned());
            }
            let named = file.service.iter().map(|s| format!("{}.{}", file.package(), s.name()));
            services.extend(named);
        }
        services.sort_unstable();
        let files = files.iter().map(|file| file.encode_to_vec().into()).collect();
        Self { files, closures, symbols, services }
    }

    /// The answer to one question.
    #[must_use]
    pub fn answer(&self, request: ServerReflectionRequest) -> ServerReflectionResponse {
        let response = match &request.message_request {
            Some(MessageRequest::ListServices(_)) => {
                let service = self.services.iter();
                let service = service.map(|name| ServiceResponse { name: name.clone() }).collect();
                MessageResponse::ListServicesResponse(ListServiceResponse { service })
            }
            Some(MessageRequest::FileByFilename(name)) => self.file(name),
            Some(MessageRequest::FileContainingSymbol(symbol)) => {
                match self.symbols.get(symbol.trim_start_matches('.')) {
                    Some(file) => self.file(file),
                    None => not_found(&format!("symbol '{symbol}' is not known")),
                }
            }
            Some(MessageRequest::AllExtensionNumbersOfType(name)) => {
                if self.symbols.contains_key(name) {
                    let base_type_name = name.clone();
                    MessageResponse::AllExtensionNumbersResponse(ExtensionNumberResponse {
                        base_type_name,
                        extension_number: Vec::new(),
                    })
                } else {
                    not_found(&format!("type '{name}' is not known"))
                }
            }
            Some(MessageRequest::FileContainingExtension(extension)) => {
                not_found(&format!("'{}' has no extensions", extension.containing_type))
            }
            None => MessageResponse::ErrorResponse(ErrorResponse {
                error_code: INVALID_ARGUMENT,
                error_message: "the request asks nothing".to_owned(),
            }),
        };
        ServerReflectionResponse {
            valid_host: request.host.clone(),
            original_request: Some(request),
            message_response: Some(response),
        }
    }

    fn file(&self, name: &str) -> MessageResponse {
        match self.closures.get(name) {
            Some(closure) => {
                let files = closure.iter().map(|&file| self.files[file].clone());
                MessageResponse::FileDescriptorResponse(FileDescriptorResponse {
                    file_descriptor_proto: files.collect(),
                })
            }
            None => not_found(&format!("file '{name}' is not known")),
        }
    }
}

fn not_found(message: &str) -> MessageResponse {
    let error_message = message.to_owned();
    MessageResponse::ErrorResponse(ErrorResponse { error_code: NOT_FOUND, error_message })
}

/// Full names of everything that a file declares.
fn symbols_of(file: &FileDescriptorProto) -> Vec<String> {
    let mut symbols = Vec::new();
    let within = |name: &str| format!("{}.{name}", file.package());
    for service in &file.service {
        let service_name = within(service.name());
        let methods = service.method.iter().map(|m| format!("{service_name}.{}", m.name()));
        symbols.extend(methods);
        symbols.push(service_name);
    }
    file.message_type.iter().for_each(|m| message(m, file.package(), &mut symbols));
    file.enum_type.iter().for_each(|e| enumeration(e, file.package(), &mut symbols));
    symbols
}

fn message(message_type: &DescriptorProto, scope: &str, symbols: &mut Vec<String>) {
    let name = format!("{scope}.{}", message_type.name());
    symbols.extend(message_type.field.iter().map(|field| format!("{name}.{}", field.name())));
    message_type.nested_type.iter().for_each(|nested| message(nested, &name, symbols));
    message_type.enum_type.iter().for_each(|nested| enumeration(nested, &name, symbols));
    symbols.push(name);
}

fn enumeration(enum_type: &EnumDescriptorProto, scope: &str, symbols: &mut Vec<String>) {
    // Values belong to the scope that their enumeration is in.
    symbols.extend(enum_type.value.iter().map(|value| format!("{scope}.{}", value.name())));
    symbols.push(format!("{scope}.{}", enum_type.name()));
}
