// Netty.
import io.netty.bootstrap.Bootstrap;
import io.netty.bootstrap.ServerBootstrap;
import io.netty.buffer.ByteBuf;
import io.netty.buffer.ByteBufUtil;
import io.netty.buffer.Unpooled;
import io.netty.channel.Channel;
import io.netty.channel.ChannelFutureListener;
import io.netty.channel.ChannelHandler;
import io.netty.channel.ChannelHandlerContext;
import io.netty.channel.ChannelInboundHandlerAdapter;
import io.netty.channel.ChannelInitializer;
import io.netty.channel.SimpleChannelInboundHandler;
import io.netty.channel.nio.NioEventLoopGroup;
import io.netty.channel.socket.nio.NioServerSocketChannel;
import io.netty.channel.socket.nio.NioSocketChannel;
import io.netty.handler.codec.http.HttpClientCodec;
import io.netty.handler.codec.http.HttpObjectAggregator;
import io.netty.handler.codec.http.HttpResponse;
import io.netty.handler.codec.http.HttpServerCodec;
import io.netty.handler.codec.http.websocketx.*;
import io.netty.handler.codec.http.websocketx.WebSocketClientProtocolHandler.ClientHandshakeStateEvent;
import io.netty.handler.codec.http.websocketx.WebSocketServerProtocolHandler.HandshakeComplete;
import io.netty.handler.codec.http.websocketx.extensions.WebSocketServerExtensionHandler;
import io.netty.handler.codec.http.websocketx.extensions.compression.PerMessageDeflateServerExtensionHandshaker;
import io.netty.handler.codec.http.websocketx.extensions.compression.WebSocketClientCompressionHandler;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.net.InetSocketAddress;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.Base64;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

public class Netty {
    static final String HOST = "127.0.0.1";
    static final int MAX = 1 << 24;
    static final long NEVER = 600_000;  // ms

    static final PrintStream OUT =
        new PrintStream(System.out, true, StandardCharsets.UTF_8);
    static final NioEventLoopGroup GROUP = new NioEventLoopGroup(1);

    static void tell(String event, String more) {
        OUT.println("{\"event\":\"" + event + "\"" + more + "}");
    }

    // Nothing that the tests send needs to be escaped.
    static String quote(String text) {
        return '"' + text + '"';
    }

    // What has the key in a line of JSON, or null.
    static String get(String line, String key) {
        Matcher matcher =
            Pattern.compile("\"" + key + "\": (?:\"([^\"]*)\"|(\\w+))").matcher(line);
        if (!matcher.find()) return null;
        return matcher.group(1) != null ? matcher.group(1) : matcher.group(2);
    }

    // -- What it is told ---------------------------------------------------------

    static boolean withinMessage;

    static WebSocketFrame next(boolean text, boolean fin, ByteBuf data) {
        boolean continued = withinMessage;
        withinMessage = !fin;
        if (continued) return new ContinuationWebSocketFrame(fin, 0, data);
        if (text) return new TextWebSocketFrame(fin, 0, data);
        return new BinaryWebSocketFrame(fin, 0, data);
    }

    static void act(Channel channel, String line) {
        switch (get(line, "do")) {
        case "send":
            byte[] data = Base64.getDecoder().decode(get(line, "data"));
            boolean text = get(line, "text").equals("true");
            boolean fin = get(line, "fin").equals("true");
            channel.writeAndFlush(next(text, fin, Unpooled.wrappedBuffer(data)))
                .addListener(sent -> {
                    // Of a message that was refused, the close frame tells.
                    if (!sent.isSuccess() && !(sent.cause() instanceof IOException))
                        sent.cause().printStackTrace();
                    tell("sent", "");
                });
            break;
        case "ping":
            ByteBuf theirs = Unpooled.copiedBuffer("theirs", StandardCharsets.US_ASCII);
            channel.writeAndFlush(new PingWebSocketFrame(theirs));
            break;
        case "close":
            int code = Integer.parseInt(get(line, "code"));
            channel.writeAndFlush(new CloseWebSocketFrame(code, get(line, "reason")));
        }
    }

    static void drive(Channel channel) {
        Thread reader = new Thread(() -> {
            BufferedReader input = new BufferedReader(
                new InputStreamReader(System.in, StandardCharsets.UTF_8));
            try {
                for (String line; (line = input.readLine()) != null;) {
                    String command = line;
                    channel.eventLoop().execute(() -> act(channel, command));
                }
            } catch (IOException error) {
                error.printStackTrace();
            }
            Runtime.getRuntime().halt(0);
        });
        reader.start();
    }

    // -- What it tells -----------------------------------------------------------

    static String ending = ",\"code\":1006,\"reason\":\"\"";

    // Sees what Netty's own handler of the protocol sees, which keeps close frames.
    static class Observer extends ChannelInboundHandlerAdapter {
        @Override
        public void channelRead(ChannelHandlerContext context, Object message)
                throws Exception {
            if (message instanceof CloseWebSocketFrame) {
                CloseWebSocketFrame close = (CloseWebSocketFrame) message;
                int code = close.statusCode() == -1 ? 1005 : close.statusCode();
                ending = ",\"code\":" + code + ",\"reason\":" + quote(close.reasonText());
            }
            super.channelRead(context, message);
        }
    }

    static class Teller extends SimpleChannelInboundHandler<WebSocketFrame> {
        String agreed = "";

        void opened(ChannelHandlerContext context, String subprotocol) {
            context.pipeline().addBefore("protocol", "observer", new Observer());
            tell("open", ",\"subprotocol\":" + quote(subprotocol == null ? "" : subprotocol));
            drive(context.channel());
        }

        @Override
        public void userEventTriggered(ChannelHandlerContext context, Object event) {
            if (event instanceof HandshakeComplete) {
                opened(context, ((HandshakeComplete) event).selectedSubprotocol());
            } else if (event == ClientHandshakeStateEvent.HANDSHAKE_COMPLETE) {
                opened(context, context.pipeline().get(WebSocketClientProtocolHandler.class)
                    .handshaker().actualSubprotocol());
            }
        }

        @Override
        protected void channelRead0(ChannelHandlerContext context, WebSocketFrame frame) {
            if (frame instanceof PongWebSocketFrame) {
                String data = frame.content().toString(StandardCharsets.ISO_8859_1);
                if (data.equals("theirs")) tell("pong", ",\"data\":" + quote(data));
                return;
            }
            if (frame instanceof CloseWebSocketFrame) {  // to a client alone
                context.writeAndFlush(frame.retain())
                    .addListener(ChannelFutureListener.CLOSE);
                return;
            }
            byte[] data = ByteBufUtil.getBytes(frame.content());
            tell("message", ",\"text\":" + (frame instanceof TextWebSocketFrame)
                + ",\"data\":" + quote(Base64.getEncoder().encodeToString(data)));
        }

        @Override
        public void channelInactive(ChannelHandlerContext context) {
            tell("closed", ending);
        }

        @Override
        public void exceptionCaught(ChannelHandlerContext context, Throwable error) {
            if (error instanceof IOException) return;
            error.printStackTrace();
            Runtime.getRuntime().halt(1);
        }
    }

    static void add(Channel channel, ChannelHandler... handlers) {
        channel.pipeline().addLast(handlers);
    }

    static void connect(String port, String subprotocols) {
        WebSocketClientProtocolConfig config = WebSocketClientProtocolConfig.newBuilder()
            .webSocketUri(URI.create("ws://" + HOST + ":" + port + "/"))
            .subprotocol(subprotocols.isEmpty() ? null : subprotocols)
            .allowExtensions(true)
            .maxFramePayloadLength(MAX)
            .forceCloseTimeoutMillis(NEVER)
            .handleCloseFrames(false)  // it drops the connection without an answer
            .dropPongFrames(false)
            .build();
        new Bootstrap().group(GROUP).channel(NioSocketChannel.class)
            .handler(new ChannelInitializer<Channel>() {
                @Override
                protected void initChannel(Channel channel) {
                    add(channel, new HttpClientCodec(), new HttpObjectAggregator(MAX),
                        WebSocketClientCompressionHandler.INSTANCE);
                    channel.pipeline().addLast(
                        "protocol", new WebSocketClientProtocolHandler(config));
                    add(channel, new WebSocketFrameAggregator(MAX), new Teller());
                }
            })
            .connect(HOST, Integer.parseInt(port));
    }

    static void serve(String subprotocols) throws InterruptedException {
        WebSocketServerProtocolConfig config = WebSocketServerProtocolConfig.newBuilder()
            .websocketPath("/")
            .subprotocols(subprotocols.isEmpty() ? null : subprotocols)
            .allowExtensions(true)
            .maxFramePayloadLength(MAX)
            .forceCloseTimeoutMillis(NEVER)
            .dropPongFrames(false)
            .build();
        Channel channel = new ServerBootstrap().group(GROUP)
            .channel(NioServerSocketChannel.class)
            .childHandler(new ChannelInitializer<Channel>() {
                @Override
                protected void initChannel(Channel channel) {
                    add(channel, new HttpServerCodec(), new HttpObjectAggregator(MAX),
                        new WebSocketServerExtensionHandler(
                            new PerMessageDeflateServerExtensionHandshaker(
                                6, false, 15, true, true)));
                    channel.pipeline().addLast(
                        "protocol", new WebSocketServerProtocolHandler(config));
                    add(channel, new WebSocketFrameAggregator(MAX), new Teller());
                }
            })
            .bind(HOST, 0).sync().channel();
        int port = ((InetSocketAddress) channel.localAddress()).getPort();
        tell("listening", ",\"port\":" + port);
    }

    public static void main(String[] arguments) throws InterruptedException {
        boolean client = arguments[0].equals("client");
        int first = client ? 2 : 1;
        String subprotocols = String.join(
            ",", Arrays.copyOfRange(arguments, first, arguments.length));
        if (client)
            connect(arguments[1], subprotocols);
        else
            serve(subprotocols);
    }
}
