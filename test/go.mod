module github.com/iscsimp/iscsimp/test

go 1.26.0

replace github.com/iscsimp/iscsimp => ../

require (
	github.com/anishathalye/porcupine v1.3.1
	github.com/gostor/gotgt v0.2.2
	github.com/sirupsen/logrus v1.9.0
	github.com/stretchr/testify v1.12.1
	go.uber.org/goleak v1.3.0
	go.yaml.in/yaml/v3 v3.0.5
)

require (
	github.com/iscsimp/iscsimp v0.0.0
	github.com/kr/text v0.1.0 // indirect
	github.com/mitchellh/go-homedir v1.1.0 // indirect
	github.com/satori/go.uuid v1.2.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
)
