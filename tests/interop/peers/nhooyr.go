// nhooyr.io/websocket, now coder/websocket.
package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"

	"nhooyr.io/websocket"
)

const host = "127.0.0.1"

type object map[string]interface{}

var lines = make(chan []byte, 64)

var forever = context.Background()

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

func write() {
	for line := range lines {
		os.Stdout.Write(append(line, '\n'))
	}
}

func tell(event string, more object) {
	more["event"] = event
	line, err := json.Marshal(more)
	check(err)
	lines <- line
}

func read(ws *websocket.Conn) {
	for {
		kind, data, err := ws.Read(forever)
		if err != nil {
			code, reason := 1006, ""
			var closed websocket.CloseError
			if errors.As(err, &closed) {
				code, reason = int(closed.Code), closed.Reason
			}
			tell("closed", object{"code": code, "reason": reason})
			return
		}
		tell("message", object{
			"text": kind == websocket.MessageText,
			"data": base64.StdEncoding.EncodeToString(data),
		})
	}
}

type command struct {
	Do     string
	Text   bool
	Data   []byte
	Code   int
	Reason string
}

// Does what comes on stdin, whose end ends the process.
func drive(ws *websocket.Conn) {
	ws.SetReadLimit(1 << 24)
	tell("open", object{"subprotocol": ws.Subprotocol()})
	go read(ws)
	input := bufio.NewReader(os.Stdin)
	for {
		line, err := input.ReadBytes('\n')
		if err != nil {
			os.Exit(0)
		}
		var c command
		check(json.Unmarshal(line, &c))
		switch c.Do {
		case "send":
			kind := websocket.MessageBinary
			if c.Text {
				kind = websocket.MessageText
			}
			check(ws.Write(forever, kind, c.Data))
			tell("sent", object{})
		case "ping":
			check(ws.Ping(forever))
			tell("pong", object{"data": "theirs"})
		case "close":
			// What it returns, read() tells too.
			ws.Close(websocket.StatusCode(c.Code), c.Reason)
		}
	}
}

func connect(port string, subprotocols []string) {
	ws, _, err := websocket.Dial(forever, "ws://"+net.JoinHostPort(host, port)+"/",
		&websocket.DialOptions{
			Subprotocols:    subprotocols,
			CompressionMode: websocket.CompressionContextTakeover,
		})
	if err != nil {
		panic(err)
	}
	drive(ws)
}

func serve(subprotocols []string) {
	listener, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		panic(err)
	}
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	number, _ := strconv.Atoi(port)
	tell("listening", object{"port": number})
	check(http.Serve(listener, http.HandlerFunc(
		func(w http.ResponseWriter, r *http.Request) {
			ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{
				Subprotocols:    subprotocols,
				CompressionMode: websocket.CompressionContextTakeover,
			})
			if err != nil {
				panic(err)
			}
			drive(ws)
		})))
}

func main() {
	go write()
	if os.Args[1] == "client" {
		connect(os.Args[2], os.Args[3:])
	} else {
		serve(os.Args[2:])
	}
}
