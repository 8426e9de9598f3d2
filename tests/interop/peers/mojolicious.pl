# Mojolicious.
use Mojo::Base -strict, -signatures;

use Mojo::IOLoop;
use Mojo::JSON qw(decode_json encode_json);
use Mojo::Server::Daemon;
use Mojo::UserAgent;
use Mojo::Util qw(b64_decode b64_encode decode);
use Mojolicious;

my $HOST = '127.0.0.1';

sub tell_it ($event, %more) {
  STDOUT->syswrite(encode_json({event => $event, %more}) . "\n");
}

sub message ($text, $bytes) {
  tell_it('message', text => $text, data => b64_encode($bytes, ''));
}

my %commands = (
  send => sub ($tx, $command) {
    my $data = b64_decode $command->{data};
    $tx->send($command->{text} ? {text => $data} : {binary => $data},
      sub { tell_it('sent') });
  },
  ping  => sub ($tx, $command) { $tx->send([1, 0, 0, 0, 9, 'theirs']) },
  close => sub ($tx, $command) { $tx->finish(@$command{qw(code reason)}) },
);

# Does what comes on stdin, whose end ends the process.
sub drive ($tx) {
  $tx->max_websocket_size(2**24);
  $tx->on(text   => sub ($tx, $bytes) { message(\1, $bytes) });
  $tx->on(binary => sub ($tx, $bytes) { message(\0, $bytes) });
  $tx->on(frame  => sub ($tx, $frame) { tell_it('pong', data => $frame->[5]) if $frame->[4] == 10 });
  $tx->on(
    finish => sub ($tx, $code, $reason) {
      tell_it('closed', code => $code, reason => $reason // '');
    }
  );
  tell_it('open', subprotocol => $tx->protocol);
  my $buffer = '';
  my $stdin  = Mojo::IOLoop::Stream->new(\*STDIN)->timeout(0);
  $stdin->on(
    read => sub ($stream, $bytes) {
      $buffer .= $bytes;
      while ($buffer =~ s/^(.*)\n//) {
        my $command = decode_json $1;
        $commands{$command->{do}}->($tx, $command);
      }
    }
  );
  $stdin->on(close => sub { Mojo::IOLoop->stop });
  Mojo::IOLoop->stream($stdin);
}

my $role = shift @ARGV;
my ($agent, $daemon);
if ($role eq 'client') {
  my $port = shift @ARGV;
  $agent = Mojo::UserAgent->new(inactivity_timeout => 0);
  $agent->websocket(
    "ws://$HOST:$port/" => {'Sec-WebSocket-Extensions' => 'permessage-deflate'},
    \@ARGV              => sub ($agent, $tx) {
      die 'not opened: ' . $tx->res->code unless $tx->is_websocket;
      drive($tx);
    }
  );
}
else {
  my $app = Mojolicious->new(mode => 'production');
  $app->log->level('error');
  $app->routes->websocket('/')->to(
    cb => sub ($c) {
      $c->tx->with_compression;
      $c->tx->with_protocols(@ARGV);
      $c->rendered(101);
      drive($c->tx);
    }
  );
  $daemon = Mojo::Server::Daemon->new(
    app                => $app,
    listen             => ["http://$HOST"],
    inactivity_timeout => 0,
    silent             => 1,
  );
  tell_it('listening', port => 0 + $daemon->start->ports->[0]);
}
Mojo::IOLoop->start;
