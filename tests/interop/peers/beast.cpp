// Boost.Beast.
#include <boost/asio.hpp>
#include <boost/beast.hpp>
#include <boost/beast/core/detail/base64.hpp>
#include <boost/property_tree/json_parser.hpp>

#include <algorithm>
#include <iostream>
#include <sstream>
#include <thread>
#include <vector>

namespace beast = boost::beast;
namespace http = beast::http;
namespace websocket = beast::websocket;
namespace base64 = beast::detail::base64;
using boost::asio::ip::tcp;
using boost::property_tree::ptree;
using Error = beast::error_code;

static const char HOST[] = "127.0.0.1";

static boost::asio::io_context context;
static websocket::stream<tcp::socket> ws{context};
static std::vector<std::string> subprotocols;
static std::string chosen;
static beast::flat_buffer received;
static std::string sent;

static void tell(const std::string &event, const std::string &more = "") {
    std::cout << "{\"event\":\"" << event << '"' << more << "}" << std::endl;
}

// Nothing that the tests send needs to be escaped.
static std::string quote(beast::string_view text) {
    return '"' + std::string(text) + '"';
}

static void check(const Error &error) {
    if (error) std::cerr << error.message() << std::endl;
}

// Of a read and a close that are both under way, the one that sees the end tells.
static void end(const Error &error) {
    if (error == boost::asio::error::operation_aborted) return;
    const bool closed = !error || error == websocket::error::closed;
    const int code = closed ? int(ws.reason().code) : 1006;
    tell("closed", ",\"code\":" + std::to_string(code == 0 ? 1005 : code) +
                       ",\"reason\":" + quote(closed ? ws.reason().reason : ""));
}

static void read() {
    ws.async_read(received, [](const Error &error, std::size_t) {
        if (error) {
            end(error);
            return;
        }
        std::string data(base64::encoded_size(received.size()), '\0');
        data.resize(base64::encode(&data[0], received.data().data(), received.size()));
        received.consume(received.size());
        tell("message", std::string(",\"text\":") + (ws.got_text() ? "true" : "false") +
                            ",\"data\":" + quote(data));
        read();
    });
}

static void act(const std::string &line) {
    std::istringstream stream(line);
    ptree command;
    boost::property_tree::read_json(stream, command);
    const auto what = command.get<std::string>("do");
    if (what == "send") {
        const auto data = command.get<std::string>("data");
        sent.resize(base64::decoded_size(data.size()));
        sent.resize(base64::decode(&sent[0], data.data(), data.size()).first);
        ws.text(command.get<bool>("text"));
        ws.async_write_some(command.get<bool>("fin"), boost::asio::buffer(sent),
                            [](const Error &error, std::size_t) {
                                check(error);
                                tell("sent");
                            });
    } else if (what == "ping") {
        ws.async_ping("theirs", check);
    } else {
        const websocket::close_reason reason(
            websocket::close_code(command.get<int>("code")),
            command.get<std::string>("reason"));
        ws.async_close(reason, end);
    }
}

static void drive() {
    tell("open", ",\"subprotocol\":" + (chosen.empty() ? "null" : quote(chosen)));
    read();
    std::thread([] {
        for (std::string line; std::getline(std::cin, line);)
            boost::asio::post(context, [line] { act(line); });
        std::quick_exit(0);
    }).detach();
    context.run();
    std::this_thread::sleep_for(std::chrono::hours(1));  // until stdin ends
}

static void prepare() {
    websocket::permessage_deflate deflate;
    deflate.client_enable = deflate.server_enable = true;
    ws.set_option(deflate);
    ws.set_option(websocket::stream_base::timeout{websocket::stream_base::none(),
                                                  websocket::stream_base::none(), false});
    ws.control_callback([](websocket::frame_type kind, beast::string_view data) {
        if (kind == websocket::frame_type::pong) tell("pong", ",\"data\":" + quote(data));
    });
}

static void connect(const char *port) {
    prepare();
    std::string offered;
    for (const auto &name : subprotocols) offered += (offered.empty() ? "" : ", ") + name;
    ws.set_option(websocket::stream_base::decorator([=](websocket::request_type &request) {
        if (!offered.empty()) request.set(http::field::sec_websocket_protocol, offered);
    }));
    ws.next_layer().connect({boost::asio::ip::make_address(HOST),
                             static_cast<unsigned short>(std::stoi(port))});
    websocket::response_type response;
    ws.handshake(response, HOST, "/");
    chosen = std::string(response[http::field::sec_websocket_protocol]);
    drive();
}

static void serve() {
    tcp::acceptor acceptor(context, {boost::asio::ip::make_address(HOST), 0});
    tell("listening", ",\"port\":" + std::to_string(acceptor.local_endpoint().port()));
    acceptor.accept(ws.next_layer());
    beast::flat_buffer buffer;
    http::request<http::empty_body> request;
    http::read(ws.next_layer(), buffer, request);
    http::token_list offered{request[http::field::sec_websocket_protocol]};
    for (const auto &name : subprotocols)
        if (chosen.empty() && offered.exists(name)) chosen = name;
    prepare();
    ws.set_option(websocket::stream_base::decorator([](websocket::response_type &response) {
        if (!chosen.empty()) response.set(http::field::sec_websocket_protocol, chosen);
    }));
    ws.accept(request);
    drive();
}

int main(int count, char **arguments) {
    const bool client = arguments[1] == std::string("client");
    subprotocols.assign(arguments + (client ? 3 : 2), arguments + count);
    if (client)
        connect(arguments[2]);
    else
        serve();
}
