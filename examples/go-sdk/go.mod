module ferrohsm.example/go-sdk

go 1.24
