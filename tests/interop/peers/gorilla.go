// gorilla/websocket.
package main

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/gorilla/websocket"
)

const host = "127.0.0.1"

type object map[string]interface{}

var lines = make(chan []byte, 64)

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
		kind, data, err := ws.ReadMessage()
		if err != nil {
			code, reason := websocket.CloseAbnormalClosure, ""
			var closed *websocket.CloseError
			if errors.As(err, &closed) {
				code, reason = closed.Code, closed.Text
			}
			ws.Close()
			tell("closed", object{"code": code, "reason": reason})
			return
		}
		tell("message", object{
			"text": kind == websocket.TextMessage,
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
	ws.SetPongHandler(func(data string) error {
		tell("pong", object{"data": data})
		return nil
	})
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
			kind := websocket.BinaryMessage
			if c.Text {
				kind = websocket.TextMessage
			}
			check(ws.WriteMessage(kind, c.Data))
			tell("sent", object{})
		case "ping":
			check(ws.WriteControl(websocket.PingMessage, []byte("theirs"), time.Time{}))
		case "close":
			err := ws.WriteControl(websocket.CloseMessage,
				websocket.FormatCloseMessage(c.Code, c.Reason), time.Time{})
			if err != websocket.ErrCloseSent { // it has answered one already
				check(err)
			}
		}
	}
}

func connect(port string, subprotocols []string) {
	dialer := websocket.Dialer{Subprotocols: subprotocols, EnableCompression: true}
	ws, _, err := dialer.Dial("ws://"+net.JoinHostPort(host, port)+"/", nil)
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
	upgrader := websocket.Upgrader{Subprotocols: subprotocols, EnableCompression: true}
	check(http.Serve(listener, http.HandlerFunc(
		func(w http.ResponseWriter, r *http.Request) {
			ws, err := upgrader.Upgrade(w, r, nil)
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
