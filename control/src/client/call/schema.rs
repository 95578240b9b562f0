//! What a server says of itself by reflection (grpc.reflection.v1, or v1alpha where a server has no other).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use prost::Message;
use prost_reflect::DescriptorPool;
use prost_reflect::prost_types::FileDescriptorProto;
use quantum_grpc::AnyChannel;
use tonic::{Code, Status};
use tonic_reflection::pb::{v1, v1alpha};

use super::CallError;

/// Files that one symbol may need.
const FILES_MAX: usize = 1000;

/// What is asked of a server.
#[derive(Clone, Debug)]
enum Question {
    Services,
    FileOfSymbol(String),
    FileByName(String),
}

/// What it answers.
#[derive(Debug)]
enum Answer {
    Services(Vec<String>),
    Files(Vec<Vec<u8>>),
}

/// The names of the server's services, in order.
pub(super) async fn services(channel: AnyChannel) -> Result<Vec<String>, CallError> {
    match ask(channel, Question::Services).await? {
        Answer::Services(mut names) => {
            names.sort();
            Ok(names)
        }
        Answer::Files(_) => Err(Status::internal("the server listed files instead of services").into()),
    }
}

/// The files that define a symbol, with all that they import.
pub(super) async fn of_symbol(channel: AnyChannel, symbol: &str) -> Result<DescriptorPool, CallError> {
    let mut files = BTreeMap::new();
    let mut wanted = VecDeque::from([Question::FileOfSymbol(symbol.to_owned())]);
    let mut asked = BTreeSet::new();
    while let Some(question) = wanted.pop_front() {
        let encoded = match ask(channel.clone(), question).await {
            Ok(Answer::Files(files)) => files,
            Ok(Answer::Services(_)) => return Err(Status::internal("the server listed services, not files").into()),
            Err(status) if status.code() == Code::NotFound => {
                return Err(CallError::Usage(format!("the server knows no {symbol}: `list` shows its services")));
            }
            Err(status) => return Err(status.into()),
        };
        for bytes in encoded {
            let file = FileDescriptorProto::decode(bytes.as_slice());
            let file = file.map_err(|error| Status::internal(format!("the server's reflection is broken: {error}")))?;
            for import in &file.dependency {
                if asked.insert(import.clone()) && !files.contains_key(import) {
                    wanted.push_back(Question::FileByName(import.clone()));
                }
            }
            files.insert(file.name().to_owned(), file);
        }
        if files.len() > FILES_MAX {
            return Err(Status::resource_exhausted(format!("{symbol} needs more than {FILES_MAX} files")).into());
        }
    }
    let mut pool = DescriptorPool::new();
    let added = pool.add_file_descriptor_protos(files.into_values());
    added.map_err(|error| Status::internal(format!("the server's reflection is broken: {error}")))?;
    Ok(pool)
}

async fn ask(channel: AnyChannel, question: Question) -> Result<Answer, Status> {
    match ask_v1(channel.clone(), question.clone()).await {
        Err(status) if status.code() == Code::Unimplemented => ask_v1alpha(channel, question).await,
        answer => answer,
    }
}

fn no_answer() -> Status {
    Status::internal("the server's reflection did not answer")
}

/// The two versions of the service have the same messages under other names.
macro_rules! ask {
    ($name:ident, $version:ident) => {
        async fn $name(channel: AnyChannel, question: Question) -> Result<Answer, Status> {
            use $version::server_reflection_client::ServerReflectionClient;
            use $version::server_reflection_request::MessageRequest;
            use $version::server_reflection_response::MessageResponse;
            let message_request = Some(match question {
                Question::Services => MessageRequest::ListServices(String::new()),
                Question::FileOfSymbol(symbol) => MessageRequest::FileContainingSymbol(symbol),
                Question::FileByName(name) => MessageRequest::FileByFilename(name),
            });
            let request = $version::ServerReflectionRequest { host: String::new(), message_request };
            let mut client = ServerReflectionClient::new(channel);
            let mut answers = client.server_reflection_info(tokio_stream::once(request)).await?.into_inner();
            let answer = answers.message().await?.ok_or_else(no_answer)?;
            match answer.message_response.ok_or_else(no_answer)? {
                MessageResponse::ListServicesResponse(list) => {
                    Ok(Answer::Services(list.service.into_iter().map(|service| service.name).collect()))
                }
                MessageResponse::FileDescriptorResponse(files) => Ok(Answer::Files(files.file_descriptor_proto)),
                MessageResponse::ErrorResponse(error) => {
                    Err(Status::new(Code::from(error.error_code), error.error_message))
                }
                MessageResponse::AllExtensionNumbersResponse(_) => Err(no_answer()),
            }
        }
    };
}

ask!(ask_v1, v1);
ask!(ask_v1alpha, v1alpha);
